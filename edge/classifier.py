"""A bundle as a `Classifier`, for `test`, `predict`, `compare` and `serve`."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge.bundle_files import METADATA
from edge.contents import is_printable
from edge.runtime import Bundle, load
from featherweight.classifier import Classifier, FloatArray, IntArray
from featherweight.data.texts import as_texts
from featherweight.errors import WeightsError

_ID_BYTES = 8


class BundleClassifier(Classifier):
    """Classifies texts with a bundle, on OMP_NUM_THREADS threads or on one if that is not set."""

    backend = "onnxruntime"
    device = "cpu"  # whichever was requested: the runtime supports only the CPU

    def __init__(self, bundle: Bundle, size_bytes: int) -> None:
        self.name = _name(bundle.metadata)
        self.labels = tuple(bundle.classes_.tolist())
        self.dtype = str(bundle.metadata["graph"]["dtype"])
        self.bundle = bundle
        self._num_parameters = int(bundle.metadata["num_parameters"])
        self._size_bytes = size_bytes

    @classmethod
    def load(cls, path: Path) -> "BundleClassifier":
        """Loads a folder or a zip file.

        Raises:
            WeightsError: It is not a bundle, or it is damaged.
        """
        threads = os.environ.get("OMP_NUM_THREADS", "")
        bundle = load(path, int(threads) if threads.isdecimal() else 1)
        files = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
        try:
            return cls(bundle, sum(file.stat().st_size for file in files))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            reason = f"{METADATA} does not fit this version ({error!r:.80})"
            raise WeightsError(f"{path}: {reason}") from None

    def encode(self, texts: Sequence[str]) -> list[bytes]:
        """Tokenizes B texts."""
        texts = as_texts(texts)
        self.truncated_texts += sum(map(self.bundle.is_truncated, texts))
        return self.bundle.encode(texts)

    def forward(self, batch: list[bytes]) -> FloatArray:
        """Returns the calibrated logits (B, C) as float32."""
        return self.bundle.forward(batch)

    def logits(self, texts: Iterable[str], batch_size: int = 256) -> FloatArray:
        """Returns the calibrated logits (N, C) of N texts; the bundle chooses its batches."""
        return self.forward(self.encode(as_texts(texts)))

    def num_tokens(self, batch: list[bytes]) -> int:
        """Returns the number of tokens in a batch."""
        return sum(map(len, batch)) // _ID_BYTES

    def known_words(self, texts: Iterable[str]) -> IntArray:
        """Returns the number of tokens of each text (N,) that are in the vocabulary."""
        return self.bundle.known_words(texts)

    def num_parameters(self) -> int:
        """Returns the number of parameters of the exported network."""
        return self._num_parameters

    def size_bytes(self) -> int:
        """Returns the size of the zip file, or of the files in the folder."""
        return self._size_bytes


def _name(metadata: Mapping[str, Any]) -> str:
    """Returns "mine (bundle)", or "mine (int8, bundle)" for a variant."""
    name, compression = metadata["name"], metadata["training"].get("compression")
    method = compression["method"] if compression is not None else "bundle"
    if not is_printable(name) or not is_printable(method):
        raise ValueError("a name is not printable")
    if compression is None:
        return f"{name} (bundle)"
    return f"{name.removesuffix(f' ({method})')} ({method}, bundle)"
