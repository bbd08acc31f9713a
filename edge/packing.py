"""Matrices of a graph in 8 bits, computed back to fp32 when the graph is loaded.

A runtime computes once, before the first answer, whatever depends on constants alone. So only the
file gets smaller: speed is that of fp32, and no answer depends on the texts beside it.

Each row w is s · q with q = round(w / s) in [-127, 127] and s = 2^(n / 16), the smallest that
clips nothing: the formula of `lstm.storage`, so that a run stored in int8 keeps its very numbers.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

_MATRICES = ("embedding", "inputs_", "recurrent_", "head.weight")  # beginnings of their names
_DOUBLING = 16  # steps in which a scale doubles
_MIDDLE = 128  # exponents are those of numbers below 1: n + 128 is stored, in [-128, 127]
_CONSTANTS = {"two": 2.0, "middle": float(_MIDDLE), "doubling": float(_DOUBLING)}

Array = npt.NDArray[np.float32]


def packed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy of an LSTM's graph whose matrices are stored in int8, row by row."""
    small = onnx.ModelProto()
    small.CopyFrom(model)
    tensors = list(small.graph.initializer)
    constants = [
        numpy_helper.from_array(np.array(it, np.float32), name) for name, it in _CONSTANTS.items()
    ]
    nodes: list[onnx.NodeProto] = []
    for tensor in tensors:
        if not tensor.name.startswith(_MATRICES):
            constants.append(tensor)
            continue
        values, exponents = _int8(numpy_helper.to_array(tensor))
        stored, scale = f"{tensor.name}.int8", f"{tensor.name}.scale"
        constants += [numpy_helper.from_array(values, stored),
                      numpy_helper.from_array(exponents, scale)]  # fmt: skip
        nodes += _restored(tensor.name, stored, scale)
    nodes += small.graph.node
    del small.graph.initializer[:], small.graph.node[:]
    small.graph.initializer.extend(constants)
    small.graph.node.extend(nodes)
    onnx.checker.check_model(small, full_check=True)
    return small


def _int8(matrix: Array) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """Returns integers (…, R, C), and for each row (…, R, 1) n + 128."""
    needed = np.abs(matrix).max(axis=-1, keepdims=True).astype(np.float64) / 127
    # What was stored with a scale asks for the very same, whatever the last bit says.
    exponents = np.ceil(_DOUBLING * np.log2(np.maximum(needed, 1e-300)) - 1e-3)
    exponents = exponents.clip(-2 * _MIDDLE, -1)
    values = (matrix / np.exp2(exponents / _DOUBLING)).round().clip(-127, 127)
    return values.astype(np.int8), (exponents + _MIDDLE).astype(np.int8)


def _restored(name: str, stored: str, scale: str) -> list[onnx.NodeProto]:
    """Returns the nodes that compute a matrix of that name from what is stored."""
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Cast", [stored], "values", {"to": TensorProto.FLOAT}),
        ("Cast", [scale], "numbers", {"to": TensorProto.FLOAT}),
        ("Sub", [f"{name}.numbers", "middle"], "exponents", {}),
        ("Div", [f"{name}.exponents", "doubling"], "powers", {}),
        ("Pow", ["two", f"{name}.powers"], "scales", {}),
    ]
    nodes = [
        helper.make_node(operator, inputs, [f"{name}.{result}"], f"{name}.{result}", **attributes)
        for operator, inputs, result, attributes in steps
    ]
    return [*nodes, helper.make_node("Mul", [f"{name}.values", f"{name}.scales"], [name], name)]
