"""compress(classifier, config) -> Classifier: the type of the config picks the method."""

from compress.half import HalfConfig, halve
from featherweight.classifier import Classifier

__all__ = ["HalfConfig", "compress"]


def compress(classifier: Classifier, config: HalfConfig) -> Classifier:
    """Returns a smaller copy of a classifier.

    Raises:
        UsageError: The method does not fit the classifier.
    """
    return halve(classifier, config)
