"""Latency measurement, with one process per model."""
