"""Storage formats for the tensors of a model, from 32 down to less than 4 bits per number.

`store` turns a tensor into the tensors of a file, and `restore` reverses it. `rounded` returns the
values after both steps, without packing.

int8: a row w of a matrix becomes s · q with q = round(w / s) in [-127, 127].
int4: each group of 32 numbers w of a row becomes s · q with q = round(w / s) in [-7, 7].
Scales are s = 2^(n / 16) with integer n. int8 uses the smallest scale that clips nothing; int4
tries 16 scales, from that one downward, and uses the one with the least squared error. The file
holds the largest n of a matrix and, for each row or group, the steps its own n is below; values
more than 255 steps (a factor of 2^16) below become zero. Storing restored values changes nothing.
Source: Jacob et al. (2018), Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference (symmetric, per channel).

Most integers are small, so they are Huffman-coded (lossless, by zlib). "sparse" stores a pruned
matrix as one bit per number plus the nonzero numbers in fp32.
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
_STEPS_PER_DOUBLING = 16  # of a scale
_MAX_STEPS = 255  # below the largest scale
_MIN_EXPONENT = -1_000  # of rows of zeros
_INT4_SCALES = 16  # that int4 chooses from


def store(tensor: Tensor, kind: Format) -> Stored:
    """Returns the tensors that represent one tensor in a file, by name suffix.

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
        shape: Shape of the tensor.

    Raises:
        KeyError: A part is missing.
        ValueError: The size of a part does not match the shape.
    """
    if kind in ("fp32", "fp16", "bf16"):
        return stored[""].float()
    return _FORMATS[kind].restore(stored, shape)


def rounded(tensor: Tensor, kind: Format) -> Tensor:
    """Returns the values after storing and restoring, with unchanged type and device."""
    if kind == "fp32":
        return tensor
    if kind in ("fp16", "bf16"):
        return tensor.to(_HALVES[kind]).to(tensor.dtype)
    return _FORMATS[kind].rounded(tensor.detach().float()).to(tensor.dtype)


def _int8(tensor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns integers (R, C), the largest exponent (1,), and the steps below it (R, 1)."""
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
    """Returns integers (G, 32), the largest exponent (1,), and the steps below it (G, 1)."""
    groups = _grouped(tensor)
    unclipped = _unclipped(groups, 7)
    exponents = unclipped
    least_error = torch.full_like(unclipped, torch.inf)
    for step in range(_INT4_SCALES):
        scales = _scales(unclipped - step)
        error = (groups - scales * _quantized(groups, scales, 7)).square().sum(dim=1, keepdim=True)
        exponents = torch.where(error < least_error, unclipped - step, exponents)
        least_error = torch.minimum(error, least_error)
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
    # The tolerance lets restored values get their old scale in spite of rounding errors.
    return (_STEPS_PER_DOUBLING * needed.log2() - 1e-3).ceil().clamp(min=_MIN_EXPONENT)


def _with_scales(rows: Tensor, exponents: Tensor, integers: int) -> tuple[Tensor, Tensor, Tensor]:
    """Quantizes rows (R, C) with the scales of exponents (R, 1)."""
    largest = exponents.max().reshape(1)
    steps = largest - exponents
    values = _quantized(rows, _scales(exponents), integers)
    values = torch.where(steps <= _MAX_STEPS, values, torch.zeros_like(values))
    return values, largest.int(), steps.clamp(max=_MAX_STEPS).int()


def _scales(exponents: Tensor) -> Tensor:
    return torch.exp2(exponents / _STEPS_PER_DOUBLING)


def _grouped(tensor: Tensor) -> Tensor:
    """Cuts rows (R, C) into groups (G, 32); the last group of a row is padded with zeros."""
    missing = -tensor.shape[1] % GROUP
    return torch.nn.functional.pad(tensor, (0, missing)).reshape(-1, GROUP)


def _ungrouped(groups: Tensor, shape: torch.Size) -> Tensor:
    return groups.reshape(shape[0], -1)[:, : shape[1]].contiguous()


def _quantized(tensor: Tensor, scales: Tensor, largest: int) -> Tensor:
    """Returns round(tensor / scales) as int32 in [-largest, largest]."""
    return (tensor / scales).round().clamp(-largest, largest).int()


def _pack(values: Tensor) -> Tensor:
    """Returns integers in [-128, 127], Huffman-coded, as a tensor of bytes."""
    coder = zlib.compressobj(9, strategy=zlib.Z_HUFFMAN_ONLY)
    packed = coder.compress(values.to(torch.int8).numpy().tobytes()) + coder.flush()
    return torch.frombuffer(bytearray(packed), dtype=torch.uint8)


def _unpack(packed: Tensor, count: int) -> Tensor:
    """Returns `count` integers as int32.

    Raises:
        ValueError: There are fewer or more, or the code is damaged.
    """
    decoder = zlib.decompressobj()
    try:
        # The limit guards against decompression bombs; one byte more reveals a wrong count.
        values = decoder.decompress(packed.numpy().tobytes(), count + 1)
    except zlib.error as error:
        raise ValueError(f"damaged integers: {error}") from None
    if len(values) != count:
        raise ValueError(f"expected {count} integers, the file has a different number")
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
