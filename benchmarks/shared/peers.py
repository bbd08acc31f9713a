"""Models that edge_speed.py times, each called as its users call it.

Each factory creates a model in the process that times it. What is timed starts with texts and ends
with label names.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edge.bundle_files import MODEL, read
from edge.classifier import BundleClassifier
from featherweight.baselines import TfidfSVM
from featherweight.classifier import Batch, Classifier, FloatArray
from featherweight.data.dataset import DataConfig, Split, load_dataset
from featherweight.loading import load

_LABEL = "__label__"


class TimedSteps(Classifier):
    """Two steps of a classifier, of which only the time is of interest.

    Attributes:
        classifier: The classifier itself.
    """

    def __init__(
        self,
        classifier: Classifier,
        encode: Callable[[Sequence[str]], Any],
        forward: Callable[[Any], Any],
    ) -> None:
        self.classifier = classifier
        self.name, self.labels = classifier.name, classifier.labels
        self.device, self.dtype = classifier.device, classifier.dtype
        self.backend = classifier.backend
        self._encode, self._forward = encode, forward

    def encode(self, texts: Sequence[str]) -> Batch:
        """Runs the first step."""
        return self._encode(texts)

    def forward(self, batch: Batch) -> FloatArray:
        """Runs the second step and drops its result."""
        self._forward(batch)
        return np.empty(0)

    def num_tokens(self, batch: Batch) -> int:
        """Returns 0: tokens of different models are not comparable."""
        return 0

    def num_parameters(self) -> int:
        """Returns the parameters of the classifier."""
        return self.classifier.num_parameters()

    def size_bytes(self) -> int:
        """Returns the size of the classifier."""
        return self.classifier.size_bytes()


def bundle(device: str, path: str) -> TimedSteps:
    """A bundle, called as the documentation of `edge.runtime` shows."""
    classifier = BundleClassifier.load(Path(path))
    return TimedSteps(classifier, list, classifier.bundle.predict)


def tokenizing(device: str, path: str) -> TimedSteps:
    """A bundle whose first step is tokenizing."""
    classifier = BundleClassifier.load(Path(path))
    return TimedSteps(classifier, classifier.bundle.encode, classifier.bundle.forward)


def graph(device: str, path: str) -> TimedSteps:
    """A bundle whose second step is the graph alone."""
    classifier = BundleClassifier.load(Path(path))
    session = classifier.bundle._session
    recorder = classifier.bundle._session = _InputRecorder(len(classifier.labels))

    def inputs(texts: Sequence[str]) -> Any:
        classifier.bundle.predict(texts)
        return recorder.inputs

    return TimedSteps(classifier, inputs, partial(session.run, ["logits"]))


class _InputRecorder:
    """Replaces the session of a bundle and keeps the inputs of the graph."""

    def __init__(self, num_labels: int) -> None:
        self.inputs: Any = None
        self._num_labels = num_labels

    def run(self, names: Sequence[str], inputs: Any) -> list[FloatArray]:
        self.inputs = inputs
        return [np.zeros((len(inputs["lengths"]), self._num_labels), np.float32)]


def openvino_bundle(device: str, path: str) -> TimedSteps:
    """A bundle whose graph is computed by OpenVINO.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    classifier = BundleClassifier.load(Path(path))
    classifier.bundle._session = OpenVino(read(Path(path))[MODEL])
    classifier.backend = "openvino"
    return TimedSteps(classifier, list, classifier.bundle.predict)


class OpenVino:
    """Computes a graph on one thread in fp32, with the interface of an onnxruntime session.

    Source: https://docs.openvino.ai/2025/openvino-workflow/running-inference/optimize-inference.html
    """

    def __init__(self, model: bytes) -> None:
        import openvino

        core = openvino.Core()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "EXECUTION_MODE_HINT": "ACCURACY",  # the default may compute in fewer bits
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
        }
        compiled = core.compile_model(core.read_model(model), "CPU", settings)
        self._request = compiled.create_infer_request()

    def run(self, names: Sequence[str], inputs: Any) -> list[FloatArray]:
        """Returns the outputs of the given names."""
        results = self._request.infer(inputs, share_inputs=True)
        return [results[name] for name in names]


def trained(device: str, weights: str, batch_size: int) -> TimedSteps:
    """A run that predicts in batches of texts of similar length."""
    classifier = load(weights, device)
    return TimedSteps(classifier, list, partial(classifier.predict, batch_size=batch_size))


def svm(device: str, data: str, labels: str) -> TimedSteps:
    """The linear baseline, fitted on the training split."""
    dataset = load_dataset(DataConfig(data=data, labels=labels))
    classifier = TfidfSVM(dataset.train, dataset.labels)
    return TimedSteps(classifier, list, classifier.predict)


def fasttext(device: str, path: str, labels: Sequence[str]) -> TimedSteps:
    """A model that `train_fasttext` wrote.

    Raises:
        ImportError: fastText is not installed.
    """
    classifier = FastText(Path(path), tuple(labels))
    return TimedSteps(classifier, list, classifier.best)


def train_fasttext(train: Split, path: Path) -> None:
    """Trains fastText with the fast settings of its tutorial, reproducibly on one thread.

    Its default settings make a much larger file for little quality.

    Source: https://fasttext.cc/docs/en/supervised-tutorial.html

    Raises:
        ImportError: fastText is not installed.
    """
    from fasttext import train_supervised

    lines = path.with_suffix(".txt")
    with lines.open("w", encoding="utf-8") as file:
        for text, label in zip(train.texts, train.labels.tolist(), strict=True):
            file.write(f"{_LABEL}{label} {' '.join(text.split())}\n")
    options = {"lr": 1.0, "epoch": 25, "wordNgrams": 2, "bucket": 200_000, "dim": 50}
    train_supervised(str(lines), thread=1, verbose=0, **options).save_model(str(path))


class FastText(Classifier):
    """Averaged embeddings of words and word pairs, and a linear layer.

    Source: Joulin et al. (2017), Bag of Tricks for Efficient Text Classification.
    """

    name = "fastText"
    device = "cpu"
    backend = "fasttext"

    def __init__(self, path: Path, labels: tuple[str, ...]) -> None:
        from fasttext import load_model

        self.labels = labels
        self._model = load_model(str(path))
        self._size_bytes = path.stat().st_size

    def best(self, texts: Sequence[str]) -> list[str]:
        """Returns the most probable label of each text."""
        predictions, _ = self._model.predict(self.encode(texts))
        return [self.labels[_class_id(label)] for (label,) in predictions]

    def encode(self, texts: Sequence[str]) -> list[str]:
        """Puts each text on one line, because fastText reads up to the end of a line."""
        return [text.replace("\n", " ") for text in texts]

    def forward(self, batch: list[str]) -> FloatArray:
        """Returns the log-probabilities (B, C)."""
        logits = np.full((len(batch), len(self.labels)), np.log(1e-9))
        predictions = zip(*self._model.predict(batch, k=len(self.labels)), strict=True)
        for row, (names, probabilities) in enumerate(predictions):
            logits[row, list(map(_class_id, names))] = np.log(np.maximum(probabilities, 1e-9))
        return logits

    def num_tokens(self, batch: list[str]) -> int:
        """Returns the number of words."""
        return sum(len(text.split()) for text in batch)

    def num_parameters(self) -> int:
        """Returns the values of the embeddings, hashed word pairs included, and the last layer."""
        return int(self._model.get_input_matrix().size + self._model.get_output_matrix().size)

    def size_bytes(self) -> int:
        """Returns the size of its file."""
        return self._size_bytes


def _class_id(label: str) -> int:
    return int(label.removeprefix(_LABEL))
