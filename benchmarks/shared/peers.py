"""Contenders of the benchmark of the bundle's speed, each asked as its users ask it.

The functions make them in the process that times them; what is timed begins with texts and ends
with the names of labels.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edge.classifier import BundleClassifier
from edge.runtime import MODEL, read
from featherweight.baselines import TfidfSVM
from featherweight.classifier import Batch, Classifier, FloatArray
from featherweight.data.dataset import DataConfig, Split, load_dataset
from featherweight.loading import load

_LABEL = "__label__"


class TwoStepClassifier(Classifier):
    """A classifier in two steps of which only the time is of interest.

    Attributes:
        answering: The classifier itself.
    """

    def __init__(
        self,
        answering: Classifier,
        first: Callable[[Sequence[str]], Any],
        second: Callable[[Any], Any],
    ) -> None:
        self.answering = answering
        self.name, self.labels = answering.name, answering.labels
        self.device, self.dtype, self.backend = answering.device, answering.dtype, answering.backend
        self._first, self._second = first, second

    def encode(self, texts: Sequence[str]) -> Batch:
        """Does the first step."""
        return self._first(texts)

    def forward(self, batch: Batch) -> FloatArray:
        """Does the second step, and keeps nothing of it."""
        self._second(batch)
        return np.empty(0)

    def num_tokens(self, batch: Batch) -> int:
        """Does not look: each of them has tokens of its own."""
        return 0


def bundle(device: str, path: str) -> TwoStepClassifier:
    """A bundle, asked for labels as `edge.runtime` shows it."""
    classifier = BundleClassifier.load(Path(path))
    return _as_a_whole(classifier, classifier.bundle.predict)


def tokenizing(device: str, path: str) -> TwoStepClassifier:
    """The same; its first step is to tokenize."""
    classifier = BundleClassifier.load(Path(path))
    return TwoStepClassifier(classifier, classifier.bundle.encode, classifier.bundle.forward)


def graph(device: str, path: str) -> TwoStepClassifier:
    """The same; its second step is the graph and nothing else."""
    classifier = BundleClassifier.load(Path(path))
    session = classifier.bundle._session
    caught = classifier.bundle._session = _Caught(len(classifier.labels))

    def inputs(texts: Sequence[str]) -> Any:
        classifier.bundle.predict(texts)
        return caught.inputs

    return TwoStepClassifier(classifier, inputs, partial(session.run, ["logits"]))


class _Caught:
    """Stands where a bundle has its session, and only keeps what that would have got."""

    def __init__(self, num_labels: int) -> None:
        self.inputs: Any = None
        self._num_labels = num_labels

    def run(self, names: Sequence[str], inputs: Any) -> list[FloatArray]:
        self.inputs = inputs
        return [np.zeros((len(inputs["lengths"]), self._num_labels), np.float32)]


def openvino_bundle(device: str, path: str) -> TwoStepClassifier:
    """A bundle whose graph OpenVINO computes; all the rest is the bundle's own.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    classifier = BundleClassifier.load(Path(path))
    classifier.bundle._session = OpenVino(read(Path(path))[MODEL])
    classifier.backend = "openvino"
    return _as_a_whole(classifier, classifier.bundle.predict)


class OpenVino:
    """Computes a graph on one thread in fp32, asked as a session of onnxruntime is.

    Source: https://docs.openvino.ai/2025/openvino-workflow/running-inference/optimize-inference.html
    """

    def __init__(self, model: bytes) -> None:
        import openvino

        core = openvino.Core()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "EXECUTION_MODE_HINT": "ACCURACY",  # otherwise it rounds to fewer bits by itself
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
        }
        compiled = core.compile_model(core.read_model(model), "CPU", settings)
        self._request = compiled.create_infer_request()

    def run(self, names: Sequence[str], inputs: Any) -> list[FloatArray]:
        """Returns the outputs of those names."""
        results = self._request.infer(inputs, share_inputs=True)
        return [results[name] for name in names]


def trained(device: str, weights: str, batch_size: int) -> TwoStepClassifier:
    """A run, answering in batches of texts of like length."""
    classifier = load(weights, device)
    return _as_a_whole(classifier, partial(classifier.predict, batch_size=batch_size))


def svm(device: str, data: str, labels: str) -> TwoStepClassifier:
    """The linear baseline, fitted on the training split."""
    dataset = load_dataset(DataConfig(data=data, labels=labels))
    classifier = TfidfSVM(dataset.train, dataset.labels)
    return _as_a_whole(classifier, classifier.predict)


def fasttext(device: str, path: str, labels: Sequence[str]) -> TwoStepClassifier:
    """What `train_fasttext` wrote.

    Raises:
        ImportError: fastText is not installed.
    """
    classifier = FastText(Path(path), tuple(labels))
    return _as_a_whole(classifier, classifier.best)


def train_fasttext(train: Split, path: Path) -> None:
    """Trains fastText as its tutorial does for speed, on one thread, which makes it repeatable.

    Its defaults make a file that is larger by far for little quality.

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
        answers, _ = self._model.predict(self.encode(texts))
        return [self.labels[_class_id(best)] for (best,) in answers]

    def encode(self, texts: Sequence[str]) -> list[str]:
        """Makes one line of each text, for it takes a line as its end."""
        return [text.replace("\n", " ") for text in texts]

    def forward(self, batch: list[str]) -> FloatArray:
        """Returns the logarithms of the probabilities (B, C)."""
        logits = np.full((len(batch), len(self.labels)), np.log(1e-9))
        names, probabilities = self._model.predict(batch, k=len(self.labels))
        for row, (found, values) in enumerate(zip(names, probabilities, strict=True)):
            logits[row, list(map(_class_id, found))] = np.log(np.maximum(values, 1e-9))
        return logits

    def num_tokens(self, batch: list[str]) -> int:
        """Counts words."""
        return sum(len(text.split()) for text in batch)

    def num_parameters(self) -> int:
        """Counts the embeddings, those of hashed word pairs too, and the linear layer."""
        return int(self._model.get_input_matrix().size + self._model.get_output_matrix().size)

    def size_bytes(self) -> int:
        """Returns the size of its file."""
        return self._size_bytes


def _as_a_whole(
    classifier: Classifier, predict: Callable[[Sequence[str]], Any]
) -> TwoStepClassifier:
    return TwoStepClassifier(classifier, list, predict)


def _class_id(label: str) -> int:
    return int(label.removeprefix(_LABEL))
