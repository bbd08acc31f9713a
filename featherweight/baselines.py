"""Two contenders that need no network: rows of every comparison."""

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from featherweight.classifier import Batch, Classifier, FloatArray
from featherweight.data.dataset import Split
from featherweight.errors import DataError


class MostFrequentClass(Classifier):
    """Answers every text with the shares of the classes in the training split."""

    name = "most frequent class"
    device = "cpu"
    backend = "numpy"

    def __init__(self, train: Split, labels: tuple[str, ...]) -> None:
        self.labels = labels
        counts = np.bincount(train.labels, minlength=len(labels))
        # A class that never occurs keeps a finite logit.
        self._logits = np.log(np.maximum(counts, 1e-9) / len(train))

    def encode(self, texts: Sequence[str]) -> Batch:
        """Keeps only how many texts there are."""
        return len(texts)

    def forward(self, batch: Batch) -> FloatArray:
        """Returns the logarithms of the class shares (B, C)."""
        return np.tile(self._logits, (batch, 1))

    def num_tokens(self, batch: Batch) -> int:
        """It reads none."""
        return 0

    def num_parameters(self) -> int:
        """One share a class."""
        return len(self.labels)

    def size_bytes(self) -> int:
        """The shares as float32."""
        return 4 * self.num_parameters()


class TfidfSVM(Classifier):
    """TF-IDF of words and word pairs, linear SVM with balanced class weights.

    Its logits are the margins of the SVM, which are no log-probabilities: its calibration error
    says how far they are from being any.

    Source: Joachims (1998), Text Categorization with Support Vector Machines.
    """

    name = "TF-IDF + linear SVM"
    device = "cpu"
    backend = "sklearn"

    def __init__(self, train: Split, labels: tuple[str, ...]) -> None:
        self.labels = labels
        # Single letters are words too: "i" is the most telling pronoun of all.
        self._vectorizer = TfidfVectorizer(
            ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\w+|[^\w\s]"
        )
        self._svm = LinearSVC(class_weight="balanced", random_state=0)
        self._svm.fit(self._vectorizer.fit_transform(train.texts), train.labels)

    def encode(self, texts: Sequence[str]) -> Batch:
        """Returns the sparse TF-IDF matrix (B, V)."""
        return self._vectorizer.transform(texts)

    def forward(self, batch: Batch) -> FloatArray:
        """Returns the margins (B, C); a class that training never showed gets the lowest."""
        margins = self._svm.decision_function(batch)
        if margins.ndim == 1:  # two classes have one margin
            margins = np.stack([-margins, margins], axis=1)
        logits = np.full((len(margins), len(self.labels)), margins.min() - 1)
        logits[:, self._svm.classes_] = margins
        return logits

    def num_tokens(self, batch: Batch) -> int:
        """Counts the different words and word pairs of each text."""
        return int(batch.nnz)

    def num_parameters(self) -> int:
        """Coefficients, intercepts and inverse document frequencies."""
        return int(self._svm.coef_.size + self._svm.intercept_.size + self._vectorizer.idf_.size)

    def size_bytes(self) -> int:
        """Its parameters as float32 and its vocabulary as text, one entry a line."""
        vocabulary = "\n".join(self._vectorizer.vocabulary_)
        return 4 * self.num_parameters() + len(vocabulary.encode())


def baselines(train: Split, labels: tuple[str, ...]) -> list[Classifier]:
    """Returns the baselines, fitted on a training split.

    Raises:
        DataError: Its texts all have the same label.
    """
    if len(set(train.labels.tolist())) < 2:
        label = labels[train.labels[0]]
        raise DataError(f"every training text has the label {label}: no baseline can be fitted")
    return [MostFrequentClass(train, labels), TfidfSVM(train, labels)]
