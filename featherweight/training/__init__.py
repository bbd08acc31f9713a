"""What every training shares: its flags, the records of its run, the state of its optimizer."""
