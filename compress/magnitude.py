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
    flat = {name: matrix.detach().abs().flatten() for name, matrix in matrices.items()}
    if by_layer:
        masks = [_mask(values, sparsity) for values in flat.values()]
    else:
        joint = _mask(torch.cat([*flat.values()]), sparsity)
        masks = list(torch.split(joint, [len(values) for values in flat.values()]))
    return {
        name: mask.view_as(matrix)
        for (name, matrix), mask in zip(matrices.items(), masks, strict=True)
    }


def _mask(values: Tensor, sparsity: float) -> Tensor:
    mask = torch.ones_like(values, dtype=torch.bool)
    mask[values.argsort(stable=True)[: round(sparsity * len(values))]] = False
    return mask
