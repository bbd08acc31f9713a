"""Word vectors of a sentence encoder, as the start of the embedding."""
