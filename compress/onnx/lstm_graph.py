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
    """The nodes and constants of a network's graph."""

    def __init__(self, weights: Mapping[str, Array], config: ModelConfig) -> None:
        self.weights = weights
        self.config = config
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: npt.ArrayLike) -> str:
        """Adds a constant in float32 or int64; returns its name."""
        array = np.asarray(value)
        dtype = np.float32 if array.dtype.kind == "f" else np.int64
        self.constants[name] = numpy_helper.from_array(array.astype(dtype, order="C"), name)
        return name

    def node(self, operator: str, *inputs: str, num_outputs: int = 1, **attributes: Any) -> str:
        """Adds a node; returns the name of its last output, the one that is used."""
        stem = f"{operator}_{len(self.nodes)}"
        outputs = [f"{stem}_{index}" for index in range(num_outputs)]
        self.nodes.append(helper.make_node(operator, inputs, outputs, stem, **attributes))
        return outputs[-1]

    def layer(self, states: str, layer: int) -> tuple[str, str]:
        """Returns states (T, D, B, H), zero after each length, and the last ones (D, B, H)."""
        lstms = [
            {
                name: _gates(self.weights[f"encoder.{direction}.{layer}.{name}_l0"])
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            }
            for direction in ("forwards", "backwards")[: 1 + self.config.bidirectional]
        ]
        inputs = np.stack([lstm["weight_ih"] for lstm in lstms])  # (D, 4H, inputs)
        recurrent = np.stack([lstm["weight_hh"] for lstm in lstms])  # (D, 4H, H)
        biases = [np.concatenate([lstm["bias_ih"], lstm["bias_hh"]]) for lstm in lstms]
        ends = self.node(
            "LSTM",
            states,
            self.constant(f"inputs_{layer}", inputs),
            self.constant(f"recurrent_{layer}", recurrent),
            self.constant(f"biases_{layer}", np.stack(biases)),  # (D, 8H)
            "lengths",
            num_outputs=2,
            hidden_size=self.config.hidden_dim,
            direction="bidirectional" if self.config.bidirectional else "forward",
        )
        return self.nodes[-1].output[0], ends

    def joined(self, states: str, order: Sequence[int]) -> str:
        """Transposes states so that D and H are the last axes, and merges them into one axis F."""
        features = (1 + self.config.bidirectional) * self.config.hidden_dim
        shape = [*[0] * (len(order) - 2), features]  # 0: unchanged
        transposed = self.node("Transpose", states, perm=order)
        return self.node("Reshape", transposed, self.constant(f"joined_{len(order)}", shape))

    def pooled(self, states: str) -> str:
        """Pools the states (B, T, F) within each length to (B, F).

        Time is not the first axis because the runtime does not vectorize a maximum over that axis.
        """
        # Found by the token id: comparing positions with lengths takes five more nodes and 3 % of
        # the time for one text.
        is_padding = self.node("Equal", "input_ids", self.constant("pad", PAD_ID))  # (B, T)
        padding = self.node("Unsqueeze", is_padding, self.constant("last", [2]))  # (B, T, 1)
        lowest = self.constant("lowest", -np.inf)
        time = self.constant("time", [1])
        if self.config.pooling == "max":
            masked = self.node("Where", padding, lowest, states)
            return self.node("ReduceMax", masked, time, keepdims=0)
        if self.config.pooling == "mean":
            masked = self.node("Where", padding, self.constant("zero", 0.0), states)
            total = self.node("ReduceSum", masked, time, keepdims=0)
            counts = self.node("Cast", "lengths", to=TensorProto.FLOAT)
            column = self.node("Unsqueeze", counts, self.constant("second", [1]))  # (B, 1)
            return self.node("Div", total, column)
        vector = self.constant("attention.weight", self.weights["attention.weight"].T)
        bias = self.constant("attention.bias", self.weights["attention.bias"])
        scores = self.node("Add", self.node("MatMul", states, vector), bias)  # (B, T, 1)
        shares = self.node("Softmax", self.node("Where", padding, lowest, scores), axis=1)
        return self.node("ReduceSum", self.node("Mul", shares, states), time, keepdims=0)

    def model(self, num_labels: int) -> onnx.ModelProto:
        """Returns the checked model; the last node computes the logits."""
        self.nodes[-1].output[0] = "logits"
        inputs = [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["B", "T"]),
            helper.make_tensor_value_info("lengths", TensorProto.INT32, ["B"]),
        ]
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", num_labels])
        constants = list(self.constants.values())
        model = helper.make_model(
            helper.make_graph(self.nodes, "lstm", inputs, [logits], constants),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR,
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def lstm_graph(weights: Mapping[str, Array], config: ModelConfig) -> onnx.ModelProto:
    """Returns the network as a model of `input_ids` (B, T) int64 and `lengths` (B,) int32.

    After its length a text is padded with PAD_ID, which does not occur elsewhere.

    Args:
        weights: The state dict of the network.
        config: Its architecture.
    """
    graph = _Graph(weights, config)
    ids = graph.node("Transpose", "input_ids", perm=[1, 0])  # (T, B)
    embedding = graph.constant("embedding", weights["embedding.weight"])
    states, ends = graph.node("Gather", embedding, ids), ""  # (T, B, E)
    for layer in range(config.num_layers):
        if layer:
            states = graph.joined(states, [0, 2, 1, 3])  # (T, B, F)
        states, ends = graph.layer(states, layer)
    if config.pooling == "last":
        pooled = graph.joined(ends, [1, 0, 2])  # (B, F)
    else:
        pooled = graph.pooled(graph.joined(states, [2, 0, 1, 3]))
    head = graph.constant("head.weight", weights["head.weight"])
    bias = graph.constant("head.bias", weights["head.bias"])
    graph.node("Gemm", pooled, head, bias, transB=1)  # (B, C)
    return graph.model(len(weights["head.bias"]))


def _gates(matrix: Array) -> Array:
    """Reorders the gates of (4H, …): input, forget, cell, output in PyTorch, i, o, f, c in ONNX."""
    i, f, g, o = np.split(matrix, 4)
    return np.concatenate([i, o, f, g])
