"""Labeled texts: where they are read from, what they are checked for, and their splits."""
