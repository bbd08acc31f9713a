"""How the numbers of a model are stored: 32 bits down to 4 a number, each format by its formula.

`store` makes the tensors of a file from a tensor, `restore` the tensor that they stand for, and
`rounded` is the one after the other: what computing with the stored numbers means.

int8: a row w of a matrix becomes s · q with q = round(w / s) in [-127, 127].
int4: each group of 32 numbers w of a row becomes s · q with q = round(w / s) in [-7, 7].
Scales are s = 2^(n / 16): int8 takes the smallest that clips nothing, int4 the one of the least
squared error among 16 from there on down. Stored are the largest n of a matrix, and for each row
or group how far below it its own is; what is more than 255 steps (2^16) below is zero. So storing
what was stored changes nothing.
Source: Jacob et al. (2018), Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference (symmetric, per channel).

The integers are written in as few bits as their frequencies allow, since most of them are small:
a Huffman code of zlib, without loss. A pruned matrix in "sparse" is one bit a number, and those
that are left in fp32.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from featherweight.sparse import restore_sparse, store_sparse

Format = Literal["fp32", "fp16", "bf16", "int8", "int4", "sparse"]
Stored = dict[str, Tensor]

GROUP = 32  # numbers that share a scale in int4
_HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}
_DOUBLING = 16  # steps in which a scale doubles
_SMALLEST = 255  # steps below the largest scale
_LOWEST = 1_000  # the exponent of rows of zeros, which have none
_TRIED = 16  # scales that int4 chooses from


def store(tensor: Tensor, kind: Format) -> Stored:
    """Returns the tensors that stand for one tensor in a file, by the ends of their names.

    Args:
        tensor: On the CPU, any float type; (R, C) for int8, int4 and sparse.
        kind: The format.
    """
    if kind in ("fp32", "fp16", "bf16"):
        return {"": tensor.to(_HALVES.get(kind, torch.float32))}
    return _FORMATS[kind].store(tensor.float())


def restore(stored: Mapping[str, Tensor], kind: Format, shape: torch.Size) -> Tensor:
    """Returns the fp32 tensor that was stored.

    Args:
        stored: What `store` returned.
        kind: The format it was stored in.
        shape: Of the tensor.

    Raises:
        KeyError: A part is missing.
        ValueError: A part has another size than the shape asks for.
    """
    if kind in ("fp32", "fp16", "bf16"):
        return stored[""].float()
    return _FORMATS[kind].restore(stored, shape)


def rounded(tensor: Tensor, kind: Format) -> Tensor:
    """Returns a tensor as it is after storing and restoring, in its own type and on its device."""
    if kind == "fp32":
        return tensor
    if kind in ("fp16", "bf16"):
        return tensor.to(_HALVES[kind]).to(tensor.dtype)
    return _FORMATS[kind].rounded(tensor.detach().float()).to(tensor.dtype)


def _int8(tensor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns integers (R, C), the largest exponent (1,), and steps below it (R, 1)."""
    return _with_scales(tensor, _unclipped(tensor, 127), 127)


def _rounded_int8(tensor: Tensor) -> Tensor:
    values, largest, steps = _int8(tensor)
    return values * _scales(largest - steps)


def _store_int8(tensor: Tensor) -> Stored:
    values, largest, steps = _int8(tensor)
    return {".int8": _pack(values), ".steps": _pack(steps - 128), ".largest": largest}


def _restore_int8(stored: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
    steps = _unpack(stored[".steps"], shape[0]).reshape(-1, 1) + 128
    values = _unpack(stored[".int8"], shape.numel()).reshape(shape)
    return values * _scales(stored[".largest"] - steps)


def _int4(tensor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns integers (G, 32), the largest exponent (1,), and steps below it (G, 1)."""
    groups = _grouped(tensor)
    unclipped = _unclipped(groups, 7)
    exponents = unclipped
    least = torch.full_like(unclipped, torch.inf)
    for further in range(_TRIED):
        scales = _scales(unclipped - further)
        error = (groups - scales * _quantized(groups, scales, 7)).square().sum(dim=1, keepdim=True)
        exponents = torch.where(error < least, unclipped - further, exponents)
        least = torch.minimum(error, least)
    return _with_scales(groups, exponents, 7)


def _rounded_int4(tensor: Tensor) -> Tensor:
    values, largest, steps = _int4(tensor)
    return _ungrouped(values * _scales(largest - steps), tensor.shape)


def _store_int4(tensor: Tensor) -> Stored:
    values, largest, steps = _int4(tensor)
    nibbles = values.flatten() + 8
    pairs = nibbles[0::2] * 16 + nibbles[1::2]
    return {".int4": _pack(pairs - 128), ".steps": _pack(steps - 128), ".largest": largest}


def _restore_int4(stored: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
    groups = shape[0] * -(-shape[1] // GROUP)
    steps = _unpack(stored[".steps"], groups).reshape(-1, 1) + 128
    pairs = _unpack(stored[".int4"], groups * GROUP // 2) + 128
    nibbles = torch.stack([pairs // 16, pairs % 16], dim=1).reshape(groups, GROUP) - 8
    return _ungrouped(nibbles * _scales(stored[".largest"] - steps), shape)


def _unclipped(rows: Tensor, integers: int) -> Tensor:
    """Returns for each row the exponent (R, 1) of the smallest scale that clips nothing."""
    needed = rows.abs().amax(dim=1, keepdim=True) / integers
    # What was stored with a scale asks for the very same, whatever the last bit says.
    return (_DOUBLING * needed.log2() - 1e-3).ceil().clamp(min=-_LOWEST)


def _with_scales(rows: Tensor, exponents: Tensor, integers: int) -> tuple[Tensor, Tensor, Tensor]:
    """Quantizes rows (R, C) with scales of these exponents (R, 1)."""
    largest = exponents.max().reshape(1)
    steps = largest - exponents
    values = _quantized(rows, _scales(exponents), integers)
    values = torch.where(steps <= _SMALLEST, values, torch.zeros_like(values))
    return values, largest.int(), steps.clamp(max=_SMALLEST).int()


def _scales(exponents: Tensor) -> Tensor:
    return torch.exp2(exponents / _DOUBLING)


def _grouped(tensor: Tensor) -> Tensor:
    """Cuts the rows (R, C) into groups (G, 32), the last of a row filled up with zeros."""
    missing = -tensor.shape[1] % GROUP
    return torch.nn.functional.pad(tensor, (0, missing)).reshape(-1, GROUP)


def _ungrouped(groups: Tensor, shape: torch.Size) -> Tensor:
    return groups.reshape(shape[0], -1)[:, : shape[1]].contiguous()


def _quantized(tensor: Tensor, scales: Tensor, largest: int) -> Tensor:
    """Returns round(tensor / scales) as int32 in [-largest, largest]."""
    return (tensor / scales).round().clamp(-largest, largest).int()


def _pack(values: Tensor) -> Tensor:
    """Writes integers in [-128, 127] as a Huffman code, in a tensor of bytes."""
    coder = zlib.compressobj(9, strategy=zlib.Z_HUFFMAN_ONLY)
    packed = coder.compress(values.to(torch.int8).numpy().tobytes()) + coder.flush()
    return torch.frombuffer(bytearray(packed), dtype=torch.uint8)


def _unpack(packed: Tensor, count: int) -> Tensor:
    """Reads that many integers as int32.

    Raises:
        ValueError: There are fewer or more, or the code is damaged.
    """
    decoder = zlib.decompressobj()
    try:
        # One byte more than expected, so that a small file can neither fill the memory nor lie.
        values = decoder.decompress(packed.numpy().tobytes(), count + 1)
    except zlib.error as error:
        raise ValueError(f"damaged numbers: {error}") from None
    if len(values) != count:
        raise ValueError(f"{count} numbers are expected, the file holds others")
    return torch.frombuffer(bytearray(values), dtype=torch.int8).int()


class _Codec(NamedTuple):
    rounded: Callable[[Tensor], Tensor]
    store: Callable[[Tensor], Stored]
    restore: Callable[[Mapping[str, Tensor], torch.Size], Tensor]


_FORMATS: Mapping[str, _Codec] = {
    "int8": _Codec(_rounded_int8, _store_int8, _restore_int8),
    "int4": _Codec(_rounded_int4, _store_int4, _restore_int4),
    "sparse": _Codec(torch.clone, store_sparse, restore_sparse),
}
