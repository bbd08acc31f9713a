"""Stores the matrices of an ONNX graph in int8; they are dequantized to fp32 at load time.

ONNX Runtime folds constant expressions once, when it loads a graph. So only the file gets smaller:
the speed is that of fp32, and no result depends on the other texts in the batch.

Each row w is s · q with q = round(w / s) in [-127, 127] and s = 2^(n / 16), the smallest scale that
clips nothing. `lstm.storage` uses the same formula, so runs stored in int8 are packed losslessly.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

_MATRICES = ("embedding", "inputs_", "recurrent_", "head.weight")  # prefixes of their names
_STEPS = 16  # scales per power of two
_OFFSET = 128  # n + 128 is stored: scales are below 1, and n + 128 must be in [-128, 127]
_CONSTANTS = {"two": 2.0, "offset": float(_OFFSET), "steps": float(_STEPS)}

Array = npt.NDArray[np.float32]


def packed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy of an LSTM's graph whose matrices are stored in int8, row by row."""
    small = onnx.ModelProto()
    small.CopyFrom(model)
    initializers = [
        numpy_helper.from_array(np.array(value, np.float32), name)
        for name, value in _CONSTANTS.items()
    ]
    nodes: list[onnx.NodeProto] = []
    for tensor in model.graph.initializer:
        if not tensor.name.startswith(_MATRICES):
            initializers.append(tensor)
            continue
        values, exponents = _int8(numpy_helper.to_array(tensor))
        initializers.append(numpy_helper.from_array(values, f"{tensor.name}.int8"))
        initializers.append(numpy_helper.from_array(exponents, f"{tensor.name}.scale"))
        nodes += _dequantization(tensor.name)
    nodes += model.graph.node
    del small.graph.initializer[:], small.graph.node[:]
    small.graph.initializer.extend(initializers)
    small.graph.node.extend(nodes)
    onnx.checker.check_model(small, full_check=True)
    return small


def _int8(matrix: Array) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """Returns q (…, R, C) and n + 128 (…, R, 1)."""
    min_scale = np.abs(matrix).max(axis=-1, keepdims=True).astype(np.float64) / 127
    # The margin keeps the scale of rows that were stored with one before, despite rounding.
    exponents = np.ceil(_STEPS * np.log2(np.maximum(min_scale, 1e-300)) - 1e-3)
    exponents = exponents.clip(-2 * _OFFSET, -1)
    values = (matrix / np.exp2(exponents / _STEPS)).round().clip(-127, 127)
    return values.astype(np.int8), (exponents + _OFFSET).astype(np.int8)


def _dequantization(name: str) -> list[onnx.NodeProto]:
    """Returns the nodes that compute the matrix `name` from its int8 values and scales."""
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Cast", [f"{name}.int8"], f"{name}.values", {"to": TensorProto.FLOAT}),
        ("Cast", [f"{name}.scale"], f"{name}.numbers", {"to": TensorProto.FLOAT}),
        ("Sub", [f"{name}.numbers", "offset"], f"{name}.exponents", {}),
        ("Div", [f"{name}.exponents", "steps"], f"{name}.powers", {}),
        ("Pow", ["two", f"{name}.powers"], f"{name}.scales", {}),
        ("Mul", [f"{name}.values", f"{name}.scales"], name, {}),
    ]
    return [
        helper.make_node(operator, inputs, [output], output, **attributes)
        for operator, inputs, output, attributes in steps
    ]
