"""The peers of the bundle answer what they should, and what is timed of them is all of it."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edge.config import ExportConfig
from edge.export import export
from edge.runtime import Bundle, load
from featherweight.data.dataset import DataConfig, load_dataset

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
TEXTS = ["i am so happy today", "i miss my dog", "so\nangry", "happy " * 200, ""]


@pytest.fixture(scope="module")
def bundle(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(export(ExportConfig(tiny_run, tmp_path_factory.mktemp("bundles") / "tiny.zip")))


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("shared.peers")


@pytest.fixture
def edge_speed(peers: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for name in ("record", "runs"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("edge_speed")


def test_a_bundle_is_timed_to_its_labels(
    peers: ModuleType, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for: list[Sequence[str]] = []
    monkeypatch.setattr(Bundle, "predict", lambda self, texts: asked_for.append(texts))
    asked = peers.bundle("cpu", bundle)
    asked.forward(asked.encode(TEXTS))
    assert asked_for == [TEXTS]


def test_the_graph_alone_gets_what_the_bundle_gives_it(peers: ModuleType, bundle: str) -> None:
    asked = peers.graph("cpu", bundle)
    one = load(bundle)
    for text in TEXTS:
        (logits,) = asked._second(asked.encode([text]))
        assert logits / one.metadata["temperature"] == pytest.approx(one.logits([text]), abs=1e-6)


def test_openvino_computes_the_same_graph(peers: ModuleType, bundle: str) -> None:
    pytest.importorskip("openvino")
    asked = peers.openvino_bundle("cpu", bundle)
    assert asked.backend == "openvino"
    for text in TEXTS:
        found = asked.answering.predict_proba([text])
        assert found == pytest.approx(load(bundle).predict_proba([text]), abs=1e-4)


def test_fasttext_names_the_class_it_finds_most_probable(
    peers: ModuleType, tiny_data: Path, tmp_path: Path
) -> None:
    pytest.importorskip("fasttext")
    dataset = load_dataset(DataConfig(data=str(tiny_data)))
    peers.train_fasttext(dataset.train, tmp_path / "model.bin")
    classifier = peers.fasttext("cpu", str(tmp_path / "model.bin"), dataset.labels).answering
    logits = classifier.logits(TEXTS)
    assert np.exp(logits).sum(axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-3)
    assert classifier.best(TEXTS) == classifier.predict(TEXTS)
    assert (classifier.logits(dataset.train.texts).argmax(axis=1) == dataset.train.labels).all()


def test_a_peer_that_is_not_there_is_left_out_with_the_reason(
    edge_speed: ModuleType, bundle: str, tiny_data: Path, tmp_path: Path
) -> None:
    def missing() -> None:
        raise ModuleNotFoundError("No module named 'fasttext'")

    dataset = load_dataset(DataConfig(data=str(tiny_data)))
    makers = {
        "bundle": lambda: edge_speed.Peer("bundle", {"path": bundle}),
        "fastText": missing,
        "its LSTM in PyTorch": lambda: edge_speed._run(tmp_path / "nowhere"),
    }
    found, rows, left_out = edge_speed._asked(makers, dataset)
    assert list(found) == list(rows) == ["bundle"]
    assert left_out["fastText"] == "No module named 'fasttext'"
    assert "nowhere" in left_out["its LSTM in PyTorch"]
    assert rows["bundle"]["batch_sensitivity"] < 1e-3
