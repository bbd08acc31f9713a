"""The principal components of an encoder's states: fewer columns, most of the variance.

Source: Hotelling (1933), Analysis of a Complex of Statistical Variables into Principal Components.
"""

import numpy as np

from featherweight.classifier import FloatArray

COLUMNS = 128
_MIN_SHARE = 1e-3  # of the largest standard deviation; axes with less hold rounding errors only


def principal_components(states: FloatArray, columns: int = COLUMNS) -> FloatArray:
    """Returns the leading principal components of N states, each with a standard deviation of 1.

    Signs are fixed: the largest weight of each axis is positive.

    Args:
        states: (N, H) float32.
        columns: Maximum number of components.

    Returns:
        (N, D) float32; D is the smaller of `columns` and H.
    """
    centered = states.astype(np.float64) - states.mean(axis=0, dtype=np.float64)
    _, axes = np.linalg.eigh(centered.T @ centered)  # (H, H), in ascending order of variance
    axes = axes[:, ::-1][:, :columns]
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    components = centered @ axes
    deviations = components.std(axis=0)
    smallest = max(_MIN_SHARE * deviations[0], np.finfo(np.float64).tiny)
    return (components / deviations.clip(smallest)).astype(np.float32)
