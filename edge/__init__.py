"""The way out: a trained LSTM as one small bundle that answers without PyTorch."""
