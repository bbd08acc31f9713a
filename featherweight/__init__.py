"""Do I need a transformer here, or will a tiny recurrent model do? An answer with measurements."""

import importlib
from typing import TYPE_CHECKING, Any

from featherweight.errors import FeatherweightError

if TYPE_CHECKING:
    from featherweight.inference import run_inference
    from featherweight.loading import load

__all__ = ["FeatherweightError", "load", "run_inference"]

_MODULES = {"load": "featherweight.loading", "run_inference": "featherweight.inference"}


def __getattr__(name: str) -> Any:
    """Imports what is asked for: a bundle needs none of it, and starts a quarter sooner."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
