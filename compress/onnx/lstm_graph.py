"""An LSTM as an ONNX graph, node by node.

ONNX has the whole layer as one operator, which stops at each text's own length in both directions.
An exporter that follows PyTorch step by step would not find it in ours, and would be slower.

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

OPSET, IR = 18, 8  # the oldest that has all the operators, so that older runtimes can read it

Array = npt.NDArray[np.float32]


class _Graph:
    """Nodes and constants while they become a graph."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: npt.ArrayLike, dtype: npt.DTypeLike = np.int64) -> str:
        """Adds a constant; returns its name."""
        array = np.ascontiguousarray(value, dtype)
        self.constants[name] = numpy_helper.from_array(array.reshape(np.shape(value)), name)
        return name

    def node(self, operator: str, *inputs: str, results: int = 1, **attributes: Any) -> str:
        """Adds a node; returns the name of its last result, the one that is used."""
        stem = f"{operator}_{len(self.nodes)}"
        outputs = [f"{stem}_{index}" for index in range(results)]
        self.nodes.append(helper.make_node(operator, inputs, outputs, stem, **attributes))
        return outputs[-1]


def lstm_graph(weights: Mapping[str, Array], config: ModelConfig) -> onnx.ModelProto:
    """Returns the network as a model of `input_ids` (B, T) int64 and `lengths` (B,) int32.

    Behind its length a text has the id of padding, which stands nowhere else.

    Args:
        weights: The network's state, by its names there.
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
    """Returns states (T, D, B, H), zero behind each length, and each direction's last (D, B, H)."""
    directions = [
        {
            name: weights[f"encoder.{direction}.{layer}.{name}_l0"]
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
        for direction in ("forwards", "backwards")[: 1 + config.bidirectional]
    ]
    inputs = np.stack([_gates(it["weight_ih"]) for it in directions])  # (D, 4H, inputs)
    recurrent = np.stack([_gates(it["weight_hh"]) for it in directions])  # (D, 4H, H)
    biases = np.stack(
        [np.concatenate([_gates(it["bias_ih"]), _gates(it["bias_hh"])]) for it in directions]
    )  # (D, 8H)
    ends = graph.node(
        "LSTM",
        states,
        graph.constant(f"inputs_{layer}", inputs, np.float32),
        graph.constant(f"recurrent_{layer}", recurrent, np.float32),
        graph.constant(f"biases_{layer}", biases, np.float32),
        "lengths",
        results=2,
        hidden_size=config.hidden_dim,
        direction="bidirectional" if config.bidirectional else "forward",
    )
    return graph.nodes[-1].output[0], ends


def _joined(graph: _Graph, states: str, order: Sequence[int], config: ModelConfig) -> str:
    """Puts the axes of states in an order that ends with D and H, and makes one axis F of both."""
    features = (1 + config.bidirectional) * config.hidden_dim
    shape = [*[0] * (len(order) - 2), features]  # 0: as it is
    transposed = graph.node("Transpose", states, perm=order)
    return graph.node("Reshape", transposed, graph.constant(f"joined_{len(order)}", shape))


def _gates(matrix: Array) -> Array:
    """Puts the gates of (4H, …) in the order of ONNX: PyTorch has input, forget, cell, output."""
    i, f, g, o = np.split(matrix, 4)
    return np.concatenate([i, o, f, g])


def _pooled(graph: _Graph, states: str, weights: Mapping[str, Array], config: ModelConfig) -> str:
    """Makes one vector (B, F) of the states (B, T, F) within each length.

    Time is not the first axis, for over that the runtime takes a maximum one number after another.
    """
    padding = _padding(graph)
    lowest = graph.constant("lowest", -np.inf, np.float32)
    time = graph.constant("time", [1])
    if config.pooling == "max":
        masked = graph.node("Where", padding, lowest, states)
        return graph.node("ReduceMax", masked, time, keepdims=0)
    if config.pooling == "mean":
        nothing = graph.constant("nothing", 0, np.float32)
        total = graph.node(
            "ReduceSum", graph.node("Where", padding, nothing, states), time, keepdims=0
        )
        counts = graph.node("Cast", "lengths", to=TensorProto.FLOAT)
        column = graph.node("Unsqueeze", counts, graph.constant("second", [1]))  # (B, 1)
        return graph.node("Div", total, column)
    vector = graph.constant("attention.weight", weights["attention.weight"].T, np.float32)
    bias = graph.constant("attention.bias", weights["attention.bias"], np.float32)
    scores = graph.node("Add", graph.node("MatMul", states, vector), bias)  # (B, T, 1)
    shares = graph.node("Softmax", graph.node("Where", padding, lowest, scores), axis=1)
    return graph.node("ReduceSum", graph.node("Mul", shares, states), time, keepdims=0)


def _padding(graph: _Graph) -> str:
    """Says of each position whether it lies behind the text, (B, T, 1) bool.

    By its id, which a tokenizer gives to no text. To compare positions with lengths takes five
    more nodes: 3 % of the time of one text.
    """
    behind = graph.node("Equal", "input_ids", graph.constant("pad", PAD_ID))  # (B, T)
    return graph.node("Unsqueeze", behind, graph.constant("last", [2]))
