"""A row of a model that was only timed, as `compare` writes it."""

import copy
from typing import Any

import numpy as np
import pytest

from featherweight.comparison.record import Row, build_record
from featherweight.quality.evaluation import Evaluation


@pytest.fixture(scope="session")
def _timed_only() -> dict[str, Any]:
    evaluation = Evaluation("one", "d", "test", ("a", "b"), np.array([0, 1]), np.eye(2), 1, 4)
    timed_only = Row(
        "huge", note="random weights", parameters=335_000_000, size_bytes=1_742_000_000
    )
    rows = [Row("one", (evaluation,)), timed_only]
    row: dict[str, Any] = build_record(rows, ["x", "y"], "one", 0)["rows"][1]
    return row


@pytest.fixture
def timed_only(_timed_only: dict[str, Any]) -> dict[str, Any]:
    """Without latencies; may be changed."""
    return copy.deepcopy(_timed_only)
