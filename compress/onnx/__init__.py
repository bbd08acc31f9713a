"""Export of LSTMs and transformers to ONNX, and the classifier that runs the result."""
