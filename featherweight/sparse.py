"""Storage of pruned tensors: one bit per number marks the nonzero ones, whose values follow.

In a sparse safetensors file, the tensors NAME.kept (bits) and NAME.values replace each matrix that
gets smaller this way; the metadata holds the shapes of these matrices.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from featherweight.disk.atomic import atomic_open
from featherweight.errors import WeightsError, first_line
from featherweight.weights import read_metadata, with_sorted_metadata

SPARSE_FORMAT = "featherweight-sparse/1"
_KEPT, _VALUES = ".kept", ".values"
_DAMAGED = (SafetensorError, AttributeError, KeyError, TypeError, ValueError, RuntimeError)


def store_sparse(tensor: Tensor) -> dict[str, Tensor]:
    """Returns the tensors that represent a tensor with zeros, by name suffix.

    Args:
        tensor: On the CPU, any float type and shape.
    """
    nonzero = tensor.flatten() != 0
    return {
        _KEPT: torch.from_numpy(np.packbits(nonzero.numpy())),
        _VALUES: tensor.flatten()[nonzero],
    }


def restore_sparse(stored: Mapping[str, Tensor], shape: Sequence[int]) -> Tensor:
    """Returns the tensor that was stored, with its original type.

    Args:
        stored: What `store_sparse` returned.
        shape: Shape of the tensor.

    Raises:
        KeyError: A part is missing.
        ValueError: The size of a part does not match the shape.
    """
    bits, values, count = stored[_KEPT], stored[_VALUES], math.prod(shape)
    # Checked before any allocation: the shape comes from the file and may be huge.
    if bits.dtype != torch.uint8 or bits.shape != (math.ceil(count / 8),):
        raise ValueError(f"expected bits for {count} numbers, the file has {tuple(bits.shape)}")
    nonzero = torch.from_numpy(np.unpackbits(bits.numpy(), count=count)).bool()
    if values.shape != (int(nonzero.sum()),):
        raise ValueError(f"expected {int(nonzero.sum())} values, the file has {len(values)}")
    tensor = torch.zeros(count, dtype=values.dtype)
    tensor[nonzero] = values
    return tensor.reshape(tuple(shape))


def smaller_when_sparse(tensor: Tensor) -> bool:
    """Returns whether a tensor is smaller in sparse format."""
    return math.ceil(tensor.numel() / 8) < tensor.element_size() * int((tensor == 0).sum())


def make_sparse(path: Path) -> None:
    """Rewrites a safetensors file with matrices in sparse format where smaller."""
    tensors: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}
    for name, tensor in safetensors.torch.load_file(path).items():
        if tensor.dim() == 2 and smaller_when_sparse(tensor):
            shapes[name] = list(tensor.shape)
            tensors |= {name + suffix: part for suffix, part in store_sparse(tensor).items()}
        else:
            tensors[name] = tensor
    metadata = {"format": SPARSE_FORMAT, "shapes": json.dumps(shapes)}
    with atomic_open(path, "wb") as file:
        file.write(with_sorted_metadata(safetensors.torch.save(tensors, metadata)))


def is_sparse(path: Path) -> bool:
    """Returns whether a safetensors file was written by `make_sparse`.

    Raises:
        WeightsError: It is not a safetensors file.
    """
    return read_metadata(path).get("format") == SPARSE_FORMAT


def read_sparse(path: Path) -> dict[str, Tensor]:
    """Returns the dense tensors, by name, of a file that `make_sparse` wrote.

    Raises:
        WeightsError: It is truncated or damaged.
    """
    try:
        shapes = json.loads(read_metadata(path)["shapes"])
        tensors = safetensors.torch.load(path.read_bytes())
        for name, shape in shapes.items():
            stored = {suffix: tensors.pop(name + suffix) for suffix in (_KEPT, _VALUES)}
            tensors[name] = restore_sparse(stored, shape)
    except _DAMAGED as error:
        raise WeightsError(
            f"{path} is truncated or damaged ({first_line(error)}): compress the run again"
        ) from None
    return tensors
