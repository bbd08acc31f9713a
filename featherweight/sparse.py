"""Pruned tensors on disk: one bit a number says whether it is zero, and the others follow.

A file of them is safetensors with two tensors, NAME.kept and NAME.values, in the place of each
matrix that gets smaller by it; its metadata says how many rows and columns each has.
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

from featherweight.errors import WeightsError, first_line
from featherweight.run import atomic_open
from featherweight.weights import read_metadata, with_sorted_metadata

SPARSE_FORMAT = "featherweight-sparse/1"
_KEPT, _VALUES = ".kept", ".values"
_DAMAGED = (SafetensorError, AttributeError, KeyError, TypeError, ValueError, RuntimeError)


def store_sparse(tensor: Tensor) -> dict[str, Tensor]:
    """Returns the tensors that stand for one with zeros, by the ends of their names.

    Args:
        tensor: On the CPU, any float type and shape.
    """
    kept = tensor.flatten() != 0
    return {
        _KEPT: torch.from_numpy(np.packbits(kept.numpy())),
        _VALUES: tensor.flatten()[kept],
    }


def restore_sparse(stored: Mapping[str, Tensor], shape: Sequence[int]) -> Tensor:
    """Returns the tensor that was stored, in the type of its numbers.

    Args:
        stored: What `store_sparse` returned.
        shape: Of the tensor.

    Raises:
        KeyError: A part is missing.
        ValueError: A part has another size than the shape asks for.
    """
    bits, values, count = stored[_KEPT], stored[_VALUES], math.prod(shape)
    # Before anything of that size is made: a small file must not fill the memory.
    if bits.dtype != torch.uint8 or bits.shape != (math.ceil(count / 8),):
        raise ValueError(f"{count} numbers are expected, the file says of others which are zero")
    kept = torch.from_numpy(np.unpackbits(bits.numpy(), count=count)).bool()
    if values.shape != (int(kept.sum()),):
        raise ValueError(f"{int(kept.sum())} numbers are expected, the file holds {len(values)}")
    tensor = torch.zeros(count, dtype=values.dtype)
    tensor[kept] = values
    return tensor.reshape(tuple(shape))


def smaller_when_sparse(tensor: Tensor) -> bool:
    """Says whether the bits take less than the zeros that they spare."""
    return math.ceil(tensor.numel() / 8) < tensor.element_size() * int((tensor == 0).sum())


def make_sparse(path: Path) -> None:
    """Rewrites a safetensors file with its matrices sparse where that is smaller.

    Args:
        path: The file; a kill leaves the old one or the new one.
    """
    tensors: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}
    for name, tensor in safetensors.torch.load_file(path).items():
        if tensor.dim() == 2 and smaller_when_sparse(tensor):
            shapes[name] = list(tensor.shape)
            tensors |= {f"{name}{ending}": it for ending, it in store_sparse(tensor).items()}
        else:
            tensors[name] = tensor
    metadata = {"format": SPARSE_FORMAT, "shapes": json.dumps(shapes)}
    with atomic_open(path, "wb") as file:
        file.write(with_sorted_metadata(safetensors.torch.save(tensors, metadata)))


def is_sparse(path: Path) -> bool:
    """Says whether a safetensors file was written by `make_sparse`.

    Raises:
        WeightsError: It is no safetensors file.
    """
    return read_metadata(path).get("format") == SPARSE_FORMAT


def read_sparse(path: Path) -> dict[str, Tensor]:
    """Returns the tensors that a file of `make_sparse` stands for, by name.

    Raises:
        WeightsError: It is truncated or damaged.
    """
    try:
        shapes = json.loads(read_metadata(path)["shapes"])
        tensors = safetensors.torch.load(path.read_bytes())
        for name, shape in shapes.items():
            stored = {ending: tensors.pop(name + ending) for ending in (_KEPT, _VALUES)}
            tensors[name] = restore_sparse(stored, shape)
    except _DAMAGED as error:
        reason = first_line(error)
        raise WeightsError(f"{path} is truncated or damaged ({reason}): make it anew") from None
    return tensors
