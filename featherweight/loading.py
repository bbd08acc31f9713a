"""weights -> Classifier: reads the header of the file and asks the package that wrote it."""

import json
from pathlib import Path

from featherweight.classifier import Classifier
from featherweight.errors import WeightsError
from featherweight.run import CHECKPOINT, MODEL

LSTM_FORMAT = "featherweight-lstm/1"
_LARGEST_HEADER = 100_000_000  # bytes; the limit of the format's own reader


def load(weights: str | Path, device: str = "auto") -> Classifier:
    """Loads a trained classifier.

    Args:
        weights: A run directory, or one portable `.safetensors` file.
        device: "auto", "cpu" or "cuda".

    Raises:
        WeightsError: There is nothing there, or it is truncated, altered or foreign.
        UsageError: CUDA is asked for and there is none.
    """
    path = Path(weights)
    if path.is_dir():
        if (path / CHECKPOINT).exists():
            raise WeightsError(f"{path} was cut off in training: finish it with --resume")
        path = path / MODEL
    if not path.is_file():
        raise WeightsError(f"no weights at {path}: give a run directory or a .safetensors file")
    if read_metadata(path).get("format") != LSTM_FORMAT:
        raise WeightsError(f"{path} was not written by featherweight (or by a newer version)")

    from lstm.classifier import TextClassifier

    return TextClassifier.load(path, device)


def read_metadata(path: Path) -> dict[str, str]:
    """Returns the metadata in the header of a safetensors file, without reading any tensor.

    Source: https://github.com/huggingface/safetensors#format

    Raises:
        WeightsError: The file is no safetensors file.
    """
    foreign = WeightsError(f"{path} is not a safetensors file, or a truncated one")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(_LARGEST_HEADER, path.stat().st_size):
            raise foreign
        try:
            header = json.loads(file.read(length))
            return dict(header.get("__metadata__", {}))
        except (ValueError, AttributeError, TypeError, RecursionError):
            raise foreign from None
