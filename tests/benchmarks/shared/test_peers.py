"""The models of edge_speed.py predict what they should, and all of it is timed."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edge.config import ExportConfig
from edge.export import export
from edge.runtime import Bundle, load
from featherweight.data.dataset import DataConfig, load_dataset
from tests.benchmarks.conftest import Program

TEXTS = ["i am so happy today", "i miss my dog", "so\nangry", "happy " * 200, ""]


@pytest.fixture(scope="module")
def bundle(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(export(ExportConfig(tiny_run, tmp_path_factory.mktemp("bundles") / "tiny.zip")))


@pytest.fixture
def peers(program: Program) -> ModuleType:
    return program("shared.peers")


def test_bundle_is_timed_up_to_its_labels(
    peers: ModuleType, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Sequence[str]] = []
    monkeypatch.setattr(Bundle, "predict", lambda self, texts: calls.append(texts))
    steps = peers.bundle("cpu", bundle)
    steps.forward(steps.encode(TEXTS))
    assert calls == [TEXTS]


def test_graph_alone_gets_the_inputs_of_the_bundle(peers: ModuleType, bundle: str) -> None:
    steps = peers.graph("cpu", bundle)
    reference = load(bundle)
    for text in TEXTS:
        (logits,) = steps._forward(steps.encode([text]))
        expected = pytest.approx(reference.logits([text]), abs=1e-6)
        assert logits / reference.metadata["temperature"] == expected


def test_openvino_computes_the_same_graph(peers: ModuleType, bundle: str) -> None:
    pytest.importorskip("openvino")
    steps = peers.openvino_bundle("cpu", bundle)
    assert steps.backend == "openvino"
    for text in TEXTS:
        probabilities = steps.classifier.predict_proba([text])
        assert probabilities == pytest.approx(load(bundle).predict_proba([text]), abs=1e-4)


def test_fasttext_predicts_the_most_probable_label(
    peers: ModuleType, tiny_data: Path, tmp_path: Path
) -> None:
    pytest.importorskip("fasttext")
    dataset = load_dataset(DataConfig(data=str(tiny_data)))
    peers.train_fasttext(dataset.train, tmp_path / "model.bin")
    classifier = peers.fasttext("cpu", str(tmp_path / "model.bin"), dataset.labels).classifier
    logits = classifier.logits(TEXTS)
    assert np.exp(logits).sum(axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-3)
    assert classifier.best(TEXTS) == classifier.predict(TEXTS)
    assert (classifier.logits(dataset.train.texts).argmax(axis=1) == dataset.train.labels).all()


def test_unavailable_model_is_left_out_with_the_reason(
    program: Program, bundle: str, tiny_data: Path, tmp_path: Path
) -> None:
    def missing() -> None:
        raise ModuleNotFoundError("No module named 'fasttext'")

    edge_speed = program("edge_speed")
    dataset = load_dataset(DataConfig(data=str(tiny_data)))
    factories = {
        "bundle": lambda: edge_speed.Peer("bundle", {"path": bundle}),
        "fastText": missing,
        "its LSTM in PyTorch": lambda: edge_speed._trained(tmp_path / "nowhere"),
    }
    available, rows, left_out = edge_speed._evaluate(factories, dataset)
    assert list(available) == list(rows) == ["bundle"]
    assert left_out["fastText"] == "No module named 'fasttext'"
    assert "nowhere" in left_out["its LSTM in PyTorch"]
    assert rows["bundle"]["batch_sensitivity"] < 1e-3
