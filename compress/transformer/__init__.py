"""The methods for fine-tuned transformers."""
