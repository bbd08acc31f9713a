"""Compression of trained classifiers: one module per method."""

import transformer_eval  # noqa: F401 - before any library that it keeps quiet
