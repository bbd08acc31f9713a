"""Do I need a transformer here, or will a tiny recurrent model do? An answer with measurements."""

from featherweight.errors import FeatherweightError
from featherweight.inference import run_inference
from featherweight.loading import load

__all__ = ["FeatherweightError", "load", "run_inference"]
