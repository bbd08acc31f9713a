"""What the tests of every method start from."""

from pathlib import Path

import pytest

from featherweight import load
from featherweight.dataset import Dataset, load_dataset
from featherweight.run import Run
from featherweight.testing import trained_on
from lstm.classifier import TextClassifier


@pytest.fixture
def origin(tiny_run: Path) -> TextClassifier:
    classifier = load(tiny_run, "cpu")
    assert isinstance(classifier, TextClassifier)
    return classifier


@pytest.fixture(scope="module")
def dataset(tiny_run: Path) -> Dataset:
    return load_dataset(trained_on(Run(tiny_run)))
