"""Small LSTM text classifiers, measured against transformers."""

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherweight.errors import FeatherweightError
from featherweight.moved import OldNames

if TYPE_CHECKING:
    from featherweight.classifier import Classifier
    from featherweight.data.dataset import DataConfig, load_dataset
    from featherweight.loading import load
    from featherweight.prediction.predict import run_inference
    from featherweight.quality.evaluation import evaluate
    from featherweight.reports.reporting import quality_table

    __version__: str

_PUBLIC = {
    "Classifier": "featherweight.classifier",
    "DataConfig": "featherweight.data.dataset",
    "evaluate": "featherweight.quality.evaluation",
    "load": "featherweight.loading",
    "load_dataset": "featherweight.data.dataset",
    "quality_table": "featherweight.reports.reporting",
    "run_inference": "featherweight.prediction.predict",
}

__all__ = [
    "Classifier",
    "DataConfig",
    "FeatherweightError",
    "evaluate",
    "load",
    "load_dataset",
    "quality_table",
    "run_inference",
]


def __getattr__(name: str) -> Any:
    """Imports public names on first use, so that `import featherweight` stays fast."""
    if name == "__version__":
        from importlib.metadata import version

        return version("featherweight")
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def _refuse_shadowed_packages() -> None:
    """Raises an ImportError if another file on the path shadows a package of featherweight."""
    root = Path(__file__).resolve().parents[1]
    for name in ("compress", "edge", "lstm", "transformer_eval"):
        spec = sys.modules[name].__spec__ if name in sys.modules else find_spec(name)
        if spec and spec.origin and Path(spec.origin).resolve().parents[1] != root:
            raise ImportError(
                f"{spec.origin} shadows the package {name} of featherweight: rename that file"
            )


sys.meta_path.append(OldNames())
_refuse_shadowed_packages()
