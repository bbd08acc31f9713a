"""The principal components of an encoder's states: fewer columns, most of the variance.

Source: Hotelling (1933), Analysis of a Complex of Statistical Variables into Principal Components.
"""

import numpy as np

from featherweight.classifier import FloatArray

COLUMNS = 128


def principal_components(states: FloatArray, columns: int = COLUMNS) -> FloatArray:
    """Returns the leading principal components of N states, with a standard deviation of 1.

    One factor scales all components, so the first ones are the largest. Signs are fixed: the
    largest weight of each axis is positive.

    Args:
        states: (N, H) float32.
        columns: D, number of components; at most H.

    Returns:
        (N, D) float32.
    """
    centered = states.astype(np.float64) - states.mean(axis=0, dtype=np.float64)
    _, axes = np.linalg.eigh(centered.T @ centered)  # (H, H), in ascending order of variance
    axes = axes[:, ::-1][:, :columns]
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    components = centered @ axes
    return (components / components.std()).astype(np.float32)
