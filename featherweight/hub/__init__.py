"""The Hugging Face Hub: requests, and `push`."""
