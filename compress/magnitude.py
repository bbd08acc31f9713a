"""Which weights go: those of the smallest magnitude.

Source: Han et al. (2015), Learning both Weights and Connections for Efficient Neural Networks.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


def smallest_masks(
    matrices: Mapping[str, Tensor], sparsity: float, by_layer: bool
) -> dict[str, Tensor]:
    """Returns for each matrix which weights are kept, bool of its shape.

    Args:
        matrices: The weights that may go, by name.
        sparsity: Share of them that goes, to the nearest whole number.
        by_layer: Whether each matrix loses that share, or all together.
    """
    magnitudes = {name: matrix.detach().abs() for name, matrix in matrices.items()}
    if by_layer:
        return {name: _kept(values, sparsity) for name, values in magnitudes.items()}
    together = _kept(torch.cat([values.flatten() for values in magnitudes.values()]), sparsity)
    parts = torch.split(together, [values.numel() for values in magnitudes.values()])
    return {
        name: part.reshape(values.shape)
        for (name, values), part in zip(magnitudes.items(), parts, strict=True)
    }


def _kept(values: Tensor, sparsity: float) -> Tensor:
    smallest = values.flatten().argsort(stable=True)[: round(sparsity * values.numel())]
    kept = torch.ones(values.numel(), dtype=torch.bool, device=values.device)
    kept[smallest] = False
    return kept.reshape(values.shape)
