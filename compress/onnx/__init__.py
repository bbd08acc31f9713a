"""Export to ONNX, for LSTMs and transformers, and the classifier that runs it."""
