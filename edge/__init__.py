"""Exports a trained LSTM as a bundle that runs without PyTorch, verifies and serves it."""
