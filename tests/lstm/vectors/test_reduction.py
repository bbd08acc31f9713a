import numpy as np
import pytest

from lstm.vectors.reduction import principal_components

RNG = np.random.default_rng(0)
STATES = (RNG.normal(size=(60, 6)) @ RNG.normal(size=(6, 6)) + 5).astype(np.float32)


def test_components_are_centered_uncorrelated_and_of_unit_variance() -> None:
    found = principal_components(STATES, 4)
    assert (found.shape, found.dtype) == ((60, 4), np.float32)
    assert found.mean(axis=0) == pytest.approx(0, abs=1e-5)
    assert np.cov(found.T, bias=True) == pytest.approx(np.eye(4), abs=1e-4)


def test_components_are_those_of_a_singular_value_decomposition() -> None:
    left, _, _ = np.linalg.svd(STATES - STATES.mean(axis=0), full_matrices=False)
    expected = left[:, :4] * np.sqrt(60)
    found = principal_components(STATES, 4)
    assert np.abs((expected * found).mean(axis=0)) == pytest.approx(1, abs=1e-4)


def test_signs_do_not_depend_on_the_order_of_the_states() -> None:
    order = RNG.permutation(60)
    found = principal_components(STATES[order], 6)
    assert found == pytest.approx(principal_components(STATES, 6)[order], abs=1e-4)


@pytest.mark.parametrize("states", [STATES[:3], np.repeat(STATES[:2], 20, axis=0)])
def test_axes_without_variance_stay_near_zero(states: np.ndarray) -> None:
    found = principal_components(states)
    assert found.shape == (len(states), 6)
    rank = len(np.unique(states, axis=0)) - 1
    assert found[:, :rank].std(axis=0) == pytest.approx(1, abs=1e-4)
    assert np.abs(found[:, rank:]).max() < 1e-3


def test_one_word_has_zeros() -> None:
    assert not principal_components(STATES[:1]).any()
