"""Checks the content of each file of a bundle, which may be from anyone.

Every function raises a ValueError (or the error of a parser, all of which are Exceptions) if the
content is not of the kind that `export` writes.
"""

import json
import math
import unicodedata
from collections.abc import Mapping
from typing import Any

import onnxruntime
from tokenizers import Tokenizer

from featherweight.data.tokenizer_json import check_tokenizer

_INPUTS = {"input_ids": ("tensor(int64)", 2), "lengths": ("tensor(int32)", 1)}  # type and rank
_OUTPUTS = {"logits": ("tensor(float)", 2)}
_MIN_TEMPERATURE = 1e-30  # smaller numbers are 0 in float32, or make every logit infinite
_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}  # categories: control, surrogate, line and paragraph breaks


def is_printable(name: Any) -> bool:
    """Returns whether a value is a nonempty string that prints on one line."""
    return (
        isinstance(name, str)
        and bool(name.strip())
        and _UNPRINTABLE.isdisjoint(map(unicodedata.category, name))
    )


def read_labels(content: bytes) -> list[str]:
    """Returns the C label names, in the order of the class ids."""
    labels = json.loads(content)
    if not isinstance(labels, list) or not all(map(is_printable, labels)):
        raise ValueError("not a list of printable names")
    if not labels or len(set(labels)) < len(labels):
        raise ValueError("the names must be distinct")
    return labels


def read_temperature(metadata: Mapping[str, Any]) -> float:
    """Returns the temperature that logits are divided by."""
    temperature = float(metadata["temperature"])
    if not _MIN_TEMPERATURE <= temperature < math.inf:
        raise ValueError(f"the temperature must be finite and above 0, not {temperature}")
    return temperature


def read_golden(content: bytes, num_labels: int) -> list[dict[str, Any]]:
    """Returns the golden texts: objects with "text" and its C "probabilities"."""
    rows = [json.loads(line) for line in content.splitlines()]
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise ValueError(f"line {number} has no text")
        values = row.get("probabilities")
        if not isinstance(values, list) or len(values) != num_labels:
            raise ValueError(f"line {number} does not have {num_labels} probabilities")
        if not all(isinstance(value, int | float) and 0 <= value <= 1 for value in values):
            raise ValueError(f"line {number} has a probability that is not in [0, 1]")
    return rows


def read_tokenizer(content: bytes) -> tuple[Tokenizer, int]:
    """Returns the tokenizer without truncation, and its maximum number of tokens per text."""
    parsed = json.loads(content)
    check_tokenizer(parsed)
    tokenizer = Tokenizer.from_str(content.decode())
    tokenizer.no_truncation()
    return tokenizer, parsed["truncation"]["max_length"]


def check_graph(session: onnxruntime.InferenceSession) -> None:
    """Checks names, types and ranks of the graph's inputs and outputs."""
    for kind, nodes, expected in (
        ("inputs", session.get_inputs(), _INPUTS),
        ("outputs", session.get_outputs(), _OUTPUTS),
    ):
        actual = {node.name: (node.type, len(node.shape)) for node in nodes}
        if actual != expected:
            raise ValueError(f"its {kind} must be {_described(expected)}, not {_described(actual)}")


def _described(nodes: Mapping[str, tuple[str, int]]) -> str:
    """Returns for example "lengths tensor(int32) of rank 1"."""
    return ", ".join(f"{name} {kind} of rank {rank}" for name, (kind, rank) in nodes.items())
