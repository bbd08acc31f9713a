"""Milliseconds per batch, each contender timed in a process of its own."""
