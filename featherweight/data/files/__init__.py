"""Readers of files: each turns one format into columns and numbered records."""
