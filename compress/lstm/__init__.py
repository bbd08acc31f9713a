"""The methods for LSTMs."""
