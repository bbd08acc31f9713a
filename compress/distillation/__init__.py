"""`distill`: a student, an LSTM or a transformer, learns from teachers."""
