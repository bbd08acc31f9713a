"""Tables, pictures and the model card of one run."""
