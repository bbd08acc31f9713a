"""One number that makes confidence mean what it says: the temperature.

Logits divided by it keep their order, so no answer changes; only how sure each sounds does.

Source: Guo et al. (2017), On Calibration of Modern Neural Networks, section 4.2.
"""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from featherweight.classifier import FloatArray, IntArray

_BOUNDS = np.log(0.05), np.log(20.0)  # beyond them a model knows nothing, or the texts by heart


def fit_temperature(logits: FloatArray, targets: IntArray) -> float:
    """Returns the temperature of the least mean cross-entropy, between 0.05 and 20.

    Args:
        logits: (N, C), of texts that were not learned from.
        targets: (N,) true class ids.
    """
    rows = np.arange(len(targets))

    def cross_entropy(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / np.exp(log_temperature)
        return float(-log_softmax(scaled, axis=1)[rows, targets].mean())

    # Of its logarithm, since half and twice are equally far from 1.
    found = minimize_scalar(cross_entropy, bounds=_BOUNDS, method="bounded")
    return float(np.exp(found.x))
