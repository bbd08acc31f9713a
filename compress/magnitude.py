"""Magnitude pruning: selects the smallest weights.

Source: Han et al. (2015), Learning both Weights and Connections for Efficient Neural Networks.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


def smallest_masks(
    matrices: Mapping[str, Tensor], sparsity: float, by_layer: bool
) -> dict[str, Tensor]:
    """Returns a bool mask of the shape of each matrix, False for the weights to prune.

    Args:
        matrices: The weights that may be pruned, by name.
        sparsity: Fraction of them to prune, rounded to a whole number of weights.
        by_layer: Whether to prune this fraction of each matrix, or of all weights together.
    """
    magnitudes = {name: matrix.detach().abs() for name, matrix in matrices.items()}
    if by_layer:
        return {name: _kept(values, sparsity) for name, values in magnitudes.items()}
    joint = _kept(torch.cat([values.flatten() for values in magnitudes.values()]), sparsity)
    parts = torch.split(joint, [values.numel() for values in magnitudes.values()])
    return {
        name: part.reshape(values.shape)
        for (name, values), part in zip(magnitudes.items(), parts, strict=True)
    }


def _kept(values: Tensor, sparsity: float) -> Tensor:
    smallest = values.flatten().argsort(stable=True)[: round(sparsity * values.numel())]
    kept = torch.ones(values.numel(), dtype=torch.bool, device=values.device)
    kept[smallest] = False
    return kept.reshape(values.shape)
