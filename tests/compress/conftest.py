"""What the tests of every method start from."""

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
from transformer_eval.classifier import TransformerClassifier
from transformer_eval.random_weights import build
from transformer_eval.registry import Pretrained


@pytest.fixture
def origin(tiny_run: Path) -> TextClassifier:
    classifier = load(tiny_run, "cpu")
    assert isinstance(classifier, TextClassifier)
    return classifier


@pytest.fixture(scope="module")
def dataset(tiny_run: Path) -> Dataset:
    return load_dataset(trained_on(Run(tiny_run)))


@pytest.fixture(scope="module")
def undrawn() -> Iterator[None]:
    """Draws nothing, since pictures take longer than all the rest."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reporting, "confusion_matrix", lambda _: b"a picture")
        yield


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Run:
    """A copy of the trained run, to write into."""
    return Run(Path(shutil.copytree(tiny_run, tmp_path / "outputs" / "tiny")))


@pytest.fixture(scope="module")
def folders(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, dataset: Dataset
) -> Mapping[str, Path]:
    """A folder of each of a module's FAMILIES (sizes by model type), for reading only."""
    parent = tmp_path_factory.mktemp("transformers")
    for family, sizes in request.module.FAMILIES.items():
        model = Pretrained(f"acme/{family}", family, sizes)
        build(model, dataset.train.texts, dataset.labels, parent / family)
    return {family: parent / family for family in request.module.FAMILIES}


@pytest.fixture
def bert(folders: Mapping[str, Path]) -> TransformerClassifier:
    return TransformerClassifier.load(folders["bert"], "cpu")


@pytest.fixture
def bert_run(tiny_run: Path, dataset: Dataset, tmp_path: Path) -> Run:
    """The run of a tiny transformer with random weights, to write into."""
    run = Run(Path(shutil.copytree(tiny_run, tmp_path / "outputs" / "bert")))
    run.file(MODEL).unlink()
    sizes = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 48, "vocab_size": 600, "initializer_range": 0.5,
    }  # fmt: skip
    known = Pretrained("acme/tiny-bert", "bert", sizes)
    build(known, dataset.train.texts, dataset.labels, run.file(TRANSFORMER))
    return run
