"""An LSTM as an ONNX graph, node by node.

ONNX has an operator for a whole LSTM layer that respects the length of each text in both
directions. Tracing the PyTorch module would not produce this operator, and the graph would be
slower.

Source: https://onnx.ai/onnx/operators/onnx__LSTM.html
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from lstm.config import ModelConfig
from lstm.tokenizer import PAD_ID

OPSET, IR = 18, 8  # the oldest versions with all operators, for older runtimes

Array = npt.NDArray[np.float32]


class _Graph:
    """Nodes and constants of a graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: npt.ArrayLike, dtype: npt.DTypeLike = np.int64) -> str:
        """Adds a constant; returns its name."""
        array = np.ascontiguousarray(value, dtype)
        self.constants[name] = numpy_helper.from_array(array.reshape(np.shape(value)), name)
        return name

    def node(self, operator: str, *inputs: str, num_outputs: int = 1, **attributes: Any) -> str:
        """Adds a node; returns the name of its last output, the one that is used."""
        stem = f"{operator}_{len(self.nodes)}"
        outputs = [f"{stem}_{index}" for index in range(num_outputs)]
        self.nodes.append(helper.make_node(operator, inputs, outputs, stem, **attributes))
        return outputs[-1]


def lstm_graph(weights: Mapping[str, Array], config: ModelConfig) -> onnx.ModelProto:
    """Returns the network as a model of `input_ids` (B, T) int64 and `lengths` (B,) int32.

    After its length a text is padded with PAD_ID, which does not occur elsewhere.

    Args:
        weights: The state dict of the network.
        config: Its architecture.
    """
    graph = _Graph()
    ids = graph.node("Transpose", "input_ids", perm=[1, 0])  # (T, B)
    embedding = graph.constant("embedding", weights["embedding.weight"], np.float32)
    states, ends = graph.node("Gather", embedding, ids), ""  # (T, B, E)
    for layer in range(config.num_layers):
        if layer:
            states = _joined(graph, states, [0, 2, 1, 3], config)  # (T, B, F)
        states, ends = _layer(graph, states, layer, weights, config)
    pooled = (
        _joined(graph, ends, [1, 0, 2], config)  # (B, F)
        if config.pooling == "last"
        else _pooled(graph, _joined(graph, states, [2, 0, 1, 3], config), weights, config)
    )
    graph.constant("head.weight", weights["head.weight"], np.float32)
    graph.constant("head.bias", weights["head.bias"], np.float32)
    graph.node("Gemm", pooled, "head.weight", "head.bias", transB=1)  # (B, C)
    graph.nodes[-1].output[0] = "logits"
    num_labels = len(weights["head.bias"])
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "lstm",
            [
                helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["B", "T"]),
                helper.make_tensor_value_info("lengths", TensorProto.INT32, ["B"]),
            ],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", num_labels])],
            list(graph.constants.values()),
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _layer(
    graph: _Graph, states: str, layer: int, weights: Mapping[str, Array], config: ModelConfig
) -> tuple[str, str]:
    """Returns states (T, D, B, H), zero after each length, and each direction's last (D, B, H)."""
    directions = [
        {
            name: weights[f"encoder.{direction}.{layer}.{name}_l0"]
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
        for direction in ("forwards", "backwards")[: 1 + config.bidirectional]
    ]
    inputs = np.stack([_gates(lstm["weight_ih"]) for lstm in directions])  # (D, 4H, inputs)
    recurrent = np.stack([_gates(lstm["weight_hh"]) for lstm in directions])  # (D, 4H, H)
    biases = np.stack(
        [np.concatenate([_gates(lstm["bias_ih"]), _gates(lstm["bias_hh"])]) for lstm in directions]
    )  # (D, 8H)
    ends = graph.node(
        "LSTM",
        states,
        graph.constant(f"inputs_{layer}", inputs, np.float32),
        graph.constant(f"recurrent_{layer}", recurrent, np.float32),
        graph.constant(f"biases_{layer}", biases, np.float32),
        "lengths",
        num_outputs=2,
        hidden_size=config.hidden_dim,
        direction="bidirectional" if config.bidirectional else "forward",
    )
    return graph.nodes[-1].output[0], ends


def _joined(graph: _Graph, states: str, order: Sequence[int], config: ModelConfig) -> str:
    """Transposes states so that D and H are the last axes, and merges them into one axis F."""
    features = (1 + config.bidirectional) * config.hidden_dim
    shape = [*[0] * (len(order) - 2), features]  # 0: unchanged
    transposed = graph.node("Transpose", states, perm=order)
    return graph.node("Reshape", transposed, graph.constant(f"joined_{len(order)}", shape))


def _gates(matrix: Array) -> Array:
    """Reorders the gates of (4H, …): input, forget, cell, output in PyTorch, i, o, f, c in ONNX."""
    i, f, g, o = np.split(matrix, 4)
    return np.concatenate([i, o, f, g])


def _pooled(graph: _Graph, states: str, weights: Mapping[str, Array], config: ModelConfig) -> str:
    """Pools the states (B, T, F) within each length to (B, F).

    Time is not the first axis because the runtime does not vectorize a maximum over that axis.
    """
    padding = _padding(graph)
    lowest = graph.constant("lowest", -np.inf, np.float32)
    time = graph.constant("time", [1])
    if config.pooling == "max":
        masked = graph.node("Where", padding, lowest, states)
        return graph.node("ReduceMax", masked, time, keepdims=0)
    if config.pooling == "mean":
        zero = graph.constant("zero", 0, np.float32)
        masked = graph.node("Where", padding, zero, states)
        total = graph.node("ReduceSum", masked, time, keepdims=0)
        counts = graph.node("Cast", "lengths", to=TensorProto.FLOAT)
        column = graph.node("Unsqueeze", counts, graph.constant("second", [1]))  # (B, 1)
        return graph.node("Div", total, column)
    vector = graph.constant("attention.weight", weights["attention.weight"].T, np.float32)
    bias = graph.constant("attention.bias", weights["attention.bias"], np.float32)
    scores = graph.node("Add", graph.node("MatMul", states, vector), bias)  # (B, T, 1)
    shares = graph.node("Softmax", graph.node("Where", padding, lowest, scores), axis=1)
    return graph.node("ReduceSum", graph.node("Mul", shares, states), time, keepdims=0)


def _padding(graph: _Graph) -> str:
    """Returns whether each position is padding, (B, T, 1) bool.

    Found by the token id: comparing positions with lengths takes five more nodes and 3 % of the
    time for one text.
    """
    padding = graph.node("Equal", "input_ids", graph.constant("pad", PAD_ID))  # (B, T)
    return graph.node("Unsqueeze", padding, graph.constant("last", [2]))
