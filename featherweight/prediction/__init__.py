"""`predict`: predictions for texts, and for files of any size with constant memory."""
