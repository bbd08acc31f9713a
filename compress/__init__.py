"""Smaller copies of a trained classifier, one module a method."""
