"""Compression of trained classifiers: one module per method."""

import featherweight  # noqa: F401  makes the old module name compress.pruning importable
import transformer_eval  # noqa: F401 - before any library that it keeps quiet
