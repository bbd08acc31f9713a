"""Answers of a model: class id, label name, confidence and, if asked for, known words."""

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import NamedTuple, Protocol

from featherweight.classifier import FloatArray, IntArray
from featherweight.prediction.cells import prediction_cells


class Model(Protocol):
    """A classifier or a bundle."""

    def predict_proba(self, texts: Sequence[str], /) -> FloatArray:
        """Returns the probabilities (N, C) of N texts."""

    def known_words(self, texts: Sequence[str], /) -> IntArray:
        """Returns the number of known words (N,) of N texts."""


class Answer(NamedTuple):
    """The answer for a row, in the order of the prediction columns; without a text, all are None.

    Attributes:
        label: The most probable class id.
        name: Its label.
        confidence: Its probability, with six digits.
        known_words: The number of words of the text that the model knows, if asked for.
    """

    label: int | None = None
    name: str | None = None
    confidence: str | None = None
    known_words: int | None = None

    def if_confident(self, min_confidence: float) -> "Answer":
        """Returns the answer, without its label if the confidence is too low."""
        if self.confidence is None or float(self.confidence) >= min_confidence:
            return self
        return self._replace(label=None, name="")

    def values(self) -> tuple[int | None, str | None, float | None, int | None]:
        """Returns the answer with the confidence as a number."""
        confidence = None if self.confidence is None else float(self.confidence)
        return self.label, self.name, confidence, self.known_words


def answers(
    model: Model, labels: Sequence[str], texts: Iterable[str | None], known_words: bool
) -> list[Answer]:
    """Returns the answer for each text, a blank one for None.

    Args:
        model: The model.
        labels: Its C label names.
        texts: The texts.
        known_words: Count the known words of each text, which takes a second tokenization.
    """
    texts = list(texts)
    given = [text for text in texts if text is not None]
    cells = prediction_cells(labels, model.predict_proba(given))
    counts = model.known_words(given).tolist() if known_words else repeat(None, len(given))
    found = (Answer(*cell, known) for cell, known in zip(cells, counts, strict=True))
    return [Answer() if text is None else next(found) for text in texts]
