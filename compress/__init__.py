"""Smaller copies of a trained classifier, one module a method."""

import transformer_eval  # noqa: F401 - before any library that it keeps quiet
