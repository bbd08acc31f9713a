"""Shared by all trainings: options, run records, optimizer state."""
