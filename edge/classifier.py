"""A bundle as a contender, so that `compare`, `test` and `predict` take it as they take a run."""

import os
from collections.abc import Sequence
from pathlib import Path

from edge.runtime import Bundle, load
from featherweight.classifier import Classifier, FloatArray
from featherweight.errors import WeightsError

_ID_BYTES = 8


class BundleClassifier(Classifier):
    """What a bundle answers.

    It computes with as many threads as OMP_NUM_THREADS says, without it with one.

    Attributes:
        bundle: Who answers.
    """

    backend = "onnxruntime"
    device = "cpu"  # wherever it was asked to be: the graphs are made for the CPU

    def __init__(self, bundle: Bundle, size_bytes: int) -> None:
        name = str(bundle.facts["name"])  # such as "mine" or "mine (int8)"
        self.name = f"{name[:-1]}, bundle)" if name.endswith(")") else f"{name} (bundle)"
        self.labels = tuple(bundle.classes_.tolist())
        self.dtype = str(bundle.facts["graph"]["dtype"])
        self.bundle = bundle
        self._num_parameters = int(bundle.facts["num_parameters"])
        self._size_bytes = size_bytes

    @classmethod
    def load(cls, path: Path) -> "BundleClassifier":
        """Loads a folder or a zip file.

        Raises:
            WeightsError: It is no bundle, or a damaged one.
        """
        threads = os.environ.get("OMP_NUM_THREADS", "")
        bundle = load(path, int(threads) if threads.isdecimal() else 1)
        files = [path] if path.is_file() else [it for it in path.iterdir() if it.is_file()]
        try:
            return cls(bundle, sum(it.stat().st_size for it in files))
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"{path} does not fit this version ({error!r})") from None

    def encode(self, texts: Sequence[str]) -> list[bytes]:
        """Tokenizes B texts."""
        self.truncated_texts += sum(map(self.bundle.is_cut, texts))
        return self.bundle.encode(texts)

    def forward(self, batch: list[bytes]) -> FloatArray:
        """Returns the calibrated logits (B, C) as float32."""
        return self.bundle.forward(batch)

    def logits(self, texts: Sequence[str], batch_size: int = 256) -> FloatArray:
        """Returns the calibrated logits (N, C) of N texts, in the batches of the bundle."""
        return self.forward(self.encode(texts))

    def num_tokens(self, batch: list[bytes]) -> int:
        """Returns the sum of the texts' lengths."""
        return sum(map(len, batch)) // _ID_BYTES

    def num_parameters(self) -> int:
        """Returns the parameters of the network that was exported."""
        return self._num_parameters

    def size_bytes(self) -> int:
        """Returns the size of the zip file, or of the folder's files."""
        return self._size_bytes
