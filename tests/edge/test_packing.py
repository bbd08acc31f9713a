"""Matrices in int8: a quarter of the bytes, and numbers as near as the format allows."""

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
def origin(tiny_run: Path) -> TextClassifier:
    classifier = load(tiny_run, "cpu")
    assert isinstance(classifier, TextClassifier)
    return classifier


def test_what_an_int8_run_computes_with_is_stored_without_loss(origin: TextClassifier) -> None:
    graph = graph_of(quantize(origin, int8_storage(origin), "int8"))
    assert logits(packed(graph)) == pytest.approx(logits(graph), abs=1e-5)


def test_what_a_run_in_fp32_computes_with_is_rounded(origin: TextClassifier) -> None:
    graph = graph_of(origin)
    difference = np.abs(logits(packed(graph)) - logits(graph)).max()
    assert 0 < difference < 0.1


def test_matrices_take_a_byte_a_number(origin: TextClassifier) -> None:
    graph = graph_of(origin)
    before = {it.name: it for it in graph.graph.initializer}
    after = {it.name: it for it in packed(graph).graph.initializer}
    for name in ("embedding", "inputs_0", "recurrent_0", "head.weight"):
        matrix = numpy_helper.to_array(before[name])
        assert name not in after
        assert len(after[f"{name}.int8"].raw_data) == matrix.size
        assert len(after[f"{name}.scale"].raw_data) == matrix.size // matrix.shape[-1]
    assert after["biases_0"] == before["biases_0"]


def test_the_graph_it_is_made_from_stays_as_it_is(origin: TextClassifier) -> None:
    graph = graph_of(origin)
    content = graph.SerializeToString()
    packed(graph)
    assert graph.SerializeToString() == content


def test_rows_of_zeros_stay_zeros(origin: TextClassifier) -> None:
    graph = graph_of(origin)
    (tensor,) = (it for it in graph.graph.initializer if it.name == "embedding")
    matrix = numpy_helper.to_array(tensor).copy()
    matrix[:] = 0
    tensor.CopyFrom(numpy_helper.from_array(matrix, "embedding"))
    assert np.isfinite(logits(packed(graph))).all()
