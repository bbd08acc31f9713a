import json

import numpy as np
import pytest

from featherweight.quality.coverage import MIN_CONFIDENCES, coverages

# Confidences 0.55, 0.65, 0.85, 0.97; the first and the third answer are wrong.
PROBABILITIES = np.array([[0.55, 0.45], [0.35, 0.65], [0.85, 0.15], [0.03, 0.97]])
TARGETS = np.array([1, 1, 1, 1])


def by_confidence() -> dict[float, tuple[int, float | None]]:
    rows = coverages(TARGETS, PROBABILITIES)
    return {row.min_confidence: (row.answered, row.accuracy) for row in rows}


def test_accuracy_is_that_of_the_texts_that_are_answered() -> None:
    found = by_confidence()
    assert tuple(found) == MIN_CONFIDENCES
    assert found[0.0] == (4, 0.5)
    assert found[0.6] == (3, pytest.approx(2 / 3))
    assert found[0.7] == (2, 0.5)
    assert found[0.95] == (1, 1.0)


def test_a_confidence_of_exactly_the_least_is_answered() -> None:
    (row,) = [it for it in coverages(TARGETS[:1], np.array([[0.1, 0.9]])) if
              it.min_confidence == 0.9]  # fmt: skip
    assert (row.answered, row.share, row.accuracy) == (1, 1.0, 1.0)


def test_where_nothing_is_answered_there_is_no_accuracy() -> None:
    last = coverages(TARGETS, PROBABILITIES)[-1]
    assert (last.answered, last.share, last.accuracy, last.interval) == (0, 0.0, None, None)


def test_the_interval_is_wilsons() -> None:
    # 2 of 4: (2 + z²/2) / (4 + z²) ± z / (4 + z²) · sqrt(1 + z²/4), with z = 1.959964.
    first = coverages(TARGETS, PROBABILITIES)[0]
    assert first.interval == pytest.approx((0.150036, 0.849964), abs=1e-5)


def test_rows_are_fit_for_json() -> None:
    rows = [row._asdict() for row in coverages(TARGETS, PROBABILITIES)]
    assert json.loads(json.dumps(rows))[0]["answered"] == 4
