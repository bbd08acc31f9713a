"""The temperature makes a model as sure as it is right."""

import numpy as np
import pytest

from edge.calibration import fit_temperature
from featherweight.classifier import softmax


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_it_finds_the_temperature_that_labels_were_drawn_with(temperature: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (20_000, 4))
    shares = softmax(logits / temperature).cumsum(axis=1)
    targets = (rng.random((len(logits), 1)) > shares).sum(axis=1)
    assert fit_temperature(logits, targets) == pytest.approx(temperature, rel=0.05)


def test_it_is_where_the_loss_is_least() -> None:
    # Worked by hand: right three times in four with a margin of 2, so 2 / T = log 3.
    logits = np.array([[2.0, 0.0]] * 4)
    assert fit_temperature(logits, np.array([0, 0, 0, 1])) == pytest.approx(2 / np.log(3), abs=1e-3)


def test_a_model_that_is_always_right_stays_within_bounds() -> None:
    found = fit_temperature(np.array([[9.0, 0.0], [0.0, 9.0]]), np.array([0, 1]))
    assert 0.05 <= found < 0.5
