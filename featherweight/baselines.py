"""Two baselines without a neural network, part of every comparison."""

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from featherweight.classifier import Batch, Classifier, FloatArray
from featherweight.data.dataset import Split
from featherweight.errors import DataError


class MostFrequentClass(Classifier):
    """Predicts the class shares of the training split for every text."""

    name = "most frequent class"
    device = "cpu"
    backend = "numpy"

    def __init__(self, train: Split, labels: tuple[str, ...]) -> None:
        self.labels = labels
        counts = np.bincount(train.labels, minlength=len(labels))
        # A class that never occurs keeps a finite logit.
        self._logits = np.log(np.maximum(counts, 1e-9) / len(train))

    def encode(self, texts: Sequence[str]) -> Batch:
        """Returns the number of texts."""
        return len(texts)

    def forward(self, batch: Batch) -> FloatArray:
        """Returns the logarithms of the class shares (B, C)."""
        return np.tile(self._logits, (batch, 1))

    def num_tokens(self, batch: Batch) -> int:
        """Returns 0: no text is read."""
        return 0

    def num_parameters(self) -> int:
        """Returns the number of classes."""
        return len(self.labels)

    def size_bytes(self) -> int:
        """Returns the size of the shares as float32."""
        return 4 * self.num_parameters()


class TfidfSVM(Classifier):
    """TF-IDF of words and word pairs, linear SVM with balanced class weights.

    Its logits are the margins of the SVM and not log-probabilities, which its calibration error
    shows.

    Source: Joachims (1998), Text Categorization with Support Vector Machines.
    """

    name = "TF-IDF + linear SVM"
    device = "cpu"
    backend = "sklearn"

    def __init__(self, train: Split, labels: tuple[str, ...]) -> None:
        self.labels = labels
        # Words of one letter matter: "i" is an informative pronoun.
        self._vectorizer = TfidfVectorizer(
            ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\w+|[^\w\s]"
        )
        self._svm = LinearSVC(class_weight="balanced", random_state=0)
        self._svm.fit(self._vectorizer.fit_transform(train.texts), train.labels)

    def encode(self, texts: Sequence[str]) -> Batch:
        """Returns the sparse TF-IDF matrix (B, V)."""
        return self._vectorizer.transform(texts)

    def forward(self, batch: Batch) -> FloatArray:
        """Returns the margins (B, C); a class without training texts gets the lowest."""
        margins = self._svm.decision_function(batch)
        if margins.ndim == 1:  # two classes have one margin
            margins = np.stack([-margins, margins], axis=1)
        logits = np.full((len(margins), len(self.labels)), margins.min() - 1)
        logits[:, self._svm.classes_] = margins
        return logits

    def num_tokens(self, batch: Batch) -> int:
        """Returns the number of distinct words and word pairs per text, summed over the batch."""
        return int(batch.nnz)

    def num_parameters(self) -> int:
        """Counts coefficients, intercepts and inverse document frequencies."""
        return int(self._svm.coef_.size + self._svm.intercept_.size + self._vectorizer.idf_.size)

    def size_bytes(self) -> int:
        """Returns the size of the parameters as float32 and of the vocabulary as lines of text."""
        vocabulary = "\n".join(self._vectorizer.vocabulary_)
        return 4 * self.num_parameters() + len(vocabulary.encode())


def baselines(train: Split, labels: tuple[str, ...]) -> list[Classifier]:
    """Returns the baselines, fitted on a training split.

    Raises:
        DataError: All training texts have the same label.
    """
    if len(set(train.labels.tolist())) < 2:
        label = labels[train.labels[0]]
        raise DataError(f"every training text has the label {label}: no baseline can be fitted")
    return [MostFrequentClass(train, labels), TfidfSVM(train, labels)]
