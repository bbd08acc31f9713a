"""Matrices in int8: one byte per value, with the rounding of the int8 storage of runs."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from compress.lstm.quantization import int8_storage, quantize
from compress.onnx.lstm_graph import lstm_graph
from edge.packing import packed
from featherweight import load
from lstm.classifier import TextClassifier


def graph_of(classifier: TextClassifier) -> onnx.ModelProto:
    state = classifier.module.state_dict()
    weights = {name: tensor.float().numpy() for name, tensor in state.items()}
    return lstm_graph(weights, classifier.config)


def logits(model: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    ids = np.arange(36).reshape(4, 9) % 12
    inputs = {"input_ids": ids, "lengths": np.array([1, 4, 9, 6], np.int32)}
    return session.run(None, inputs)[0]


@pytest.fixture(scope="module")
def classifier(tiny_run: Path) -> TextClassifier:
    loaded = load(tiny_run, "cpu")
    assert isinstance(loaded, TextClassifier)
    return loaded


@pytest.fixture
def graph(classifier: TextClassifier) -> onnx.ModelProto:
    return graph_of(classifier)


def test_int8_runs_are_packed_without_loss(classifier: TextClassifier) -> None:
    graph = graph_of(quantize(classifier, int8_storage(classifier), "int8"))
    assert logits(packed(graph)) == pytest.approx(logits(graph), abs=1e-5)


def test_fp32_runs_are_rounded_and_their_graph_is_not_modified(graph: onnx.ModelProto) -> None:
    content = graph.SerializeToString()
    difference = np.abs(logits(packed(graph)) - logits(graph)).max()
    assert 0 < difference < 0.1
    assert graph.SerializeToString() == content


def test_matrices_take_one_byte_per_value(graph: onnx.ModelProto) -> None:
    before = {tensor.name: tensor for tensor in graph.graph.initializer}
    after = {tensor.name: tensor for tensor in packed(graph).graph.initializer}
    for name in ("embedding", "inputs_0", "recurrent_0", "head.weight"):
        matrix = numpy_helper.to_array(before[name])
        assert name not in after
        assert len(after[f"{name}.int8"].raw_data) == matrix.size
        assert len(after[f"{name}.scale"].raw_data) == matrix.size // matrix.shape[-1]
    assert after["biases_0"] == before["biases_0"]


def test_rows_of_zeros_give_finite_logits(graph: onnx.ModelProto) -> None:
    (tensor,) = (each for each in graph.graph.initializer if each.name == "embedding")
    matrix = np.zeros_like(numpy_helper.to_array(tensor))
    tensor.CopyFrom(numpy_helper.from_array(matrix, "embedding"))
    assert np.isfinite(logits(packed(graph))).all()
