"""The tiny contender: an LSTM text classifier with a vocabulary learned from the data."""
