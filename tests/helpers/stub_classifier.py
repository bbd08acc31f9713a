"""A classifier to derive stubs from: a test implements `encode` and `forward` only."""

from featherweight.classifier import Batch, Classifier


class StubClassifier(Classifier):
    """Runs on the CPU and reports no size."""

    name = "stub"
    device = "cpu"
    backend = "numpy"

    def num_tokens(self, batch: Batch) -> int:
        return 0

    def num_parameters(self) -> int:
        return 0

    def size_bytes(self) -> int:
        return 0
