"""A small LSTM text classifier with a vocabulary learned from the data."""
