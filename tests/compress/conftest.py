"""Models and runs that the tests of all methods share."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from featherweight import load
from featherweight.data.dataset import Dataset, load_dataset
from featherweight.reports import reporting
from featherweight.run import MODEL, TRANSFORMER, Run
from featherweight.test import trained_on
from lstm.classifier import TextClassifier
from tests.conftest import untouched_generators
from tests.helpers.variants import FAMILIES
from transformer_eval.classifier import TransformerClassifier
from transformer_eval.random_weights import build
from transformer_eval.registry import Pretrained


@pytest.fixture
def origin(tiny_run: Path) -> TextClassifier:
    classifier = load(tiny_run, "cpu")
    assert isinstance(classifier, TextClassifier)
    return classifier


@pytest.fixture(scope="session")
def dataset(tiny_run: Path) -> Dataset:
    return load_dataset(trained_on(Run(tiny_run)))


@pytest.fixture(scope="module")
def undrawn() -> Iterator[None]:
    """Skips the confusion matrix, which takes longer than the rest of a test."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reporting, "confusion_matrix", lambda _: b"a picture")
        yield


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Run:
    """A copy of the trained run, to write into."""
    return Run(Path(shutil.copytree(tiny_run, tmp_path / "outputs" / "tiny")))


class _Folders(dict[str, Path]):
    """Folders of tiny transformers by family, each built when it is first needed."""

    def __init__(self, parent: Path, dataset: Dataset) -> None:
        super().__init__()
        self._parent, self._dataset = parent, dataset

    def __missing__(self, family: str) -> Path:
        model = Pretrained(f"acme/{family}", family, FAMILIES[family])
        path = self._parent / family
        with untouched_generators():
            build(model, self._dataset.train.texts, self._dataset.labels, path)
        self[family] = path
        return path


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Mapping[str, Path]:
    """The folder of a tiny transformer with random weights by family, for reading only."""
    return _Folders(tmp_path_factory.mktemp("transformers"), dataset)


@pytest.fixture
def bert(folders: Mapping[str, Path]) -> TransformerClassifier:
    return TransformerClassifier.load(folders["bert"], "cpu")


@pytest.fixture
def bert_run(tiny_run: Path, folders: Mapping[str, Path], tmp_path: Path) -> Run:
    """The run of a tiny transformer with random weights, to write into."""
    run = Run(Path(shutil.copytree(tiny_run, tmp_path / "outputs" / "bert")))
    run.file(MODEL).unlink()
    shutil.copytree(folders["bert"], run.file(TRANSFORMER))
    return run
