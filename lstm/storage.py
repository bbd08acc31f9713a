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
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from featherweight.sparse import restore_sparse, store_sparse

Format = Literal["fp32", "fp16", "bf16", "int8", "int4", "sparse"]
Stored = dict[str, Tensor]

GROUP = 32  # numbers that share a scale in int4
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
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
    if kind == "sparse":
        return store_sparse(tensor.float())
    if kind in DTYPES:
        return {"": tensor.to(DTYPES[kind])}
    values, largest, steps = _quantized(tensor.float(), kind)
    if kind == "int4":  # two values per byte
        nibbles = values.flatten() + 8
        values = nibbles[0::2] * 16 + nibbles[1::2] - 128
    return {f".{kind}": _pack(values), ".steps": _pack(steps - 128), ".largest": largest}


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
    if kind == "sparse":
        return restore_sparse(stored, shape)
    if kind in DTYPES:
        if stored[""].shape != shape:
            raise ValueError(f"expected shape {tuple(shape)}, not {tuple(stored[''].shape)}")
        return stored[""].float()
    rows, columns = shape
    if kind == "int4":
        rows, columns = rows * -(-columns // GROUP), GROUP
    steps = _unpack(stored[".steps"], rows).reshape(-1, 1) + 128
    if kind == "int8":
        values = _unpack(stored[".int8"], rows * columns)
    else:
        pairs = _unpack(stored[".int4"], rows * columns // 2) + 128
        values = torch.stack([pairs // 16, pairs % 16], dim=1) - 8
    return _dequantized(values.reshape(rows, columns), stored[".largest"], steps, shape)


def rounded(tensor: Tensor, kind: Format) -> Tensor:
    """Returns the values after storing and restoring, with unchanged type and device."""
    if kind in ("fp32", "sparse"):
        return tensor
    if kind in DTYPES:
        return tensor.to(DTYPES[kind]).to(tensor.dtype)
    quantized = _quantized(tensor.detach().float(), kind)
    return _dequantized(*quantized, tensor.shape).to(tensor.dtype)


def _quantized(tensor: Tensor, kind: Format) -> tuple[Tensor, Tensor, Tensor]:
    """Quantizes the rows (R, C) of a tensor (int8), or its groups (R, 32) (int4).

    Returns:
        Integers (R, C), the largest exponent (1,), and the steps below it (R, 1).
    """
    rows, max_integer = (tensor, 127) if kind == "int8" else (_groups(tensor), 7)
    needed = rows.abs().amax(dim=1, keepdim=True) / max_integer
    # The tolerance lets restored values get their old scale in spite of rounding errors.
    unclipped = (_STEPS_PER_DOUBLING * needed.log2() - 1e-3).ceil().clamp(min=_MIN_EXPONENT)
    exponents = unclipped if kind == "int8" else _least_error(rows, unclipped, max_integer)
    largest = exponents.max().reshape(1)
    steps = largest - exponents
    values = _integers(rows, exponents, max_integer)
    values = torch.where(steps <= _MAX_STEPS, values, torch.zeros_like(values))
    return values, largest.int(), steps.clamp(max=_MAX_STEPS).int()


def _dequantized(values: Tensor, largest: Tensor, steps: Tensor, shape: torch.Size) -> Tensor:
    rows = values * _scales(largest - steps)
    return rows.reshape(shape[0], -1)[:, : shape[1]].contiguous()


def _least_error(rows: Tensor, unclipped: Tensor, max_integer: int) -> Tensor:
    """Returns the exponents (R, 1), at most `unclipped`, with the least squared error."""
    exponents, least_error = unclipped, torch.full_like(unclipped, torch.inf)
    for step in range(_INT4_SCALES):
        restored = _scales(unclipped - step) * _integers(rows, unclipped - step, max_integer)
        error = (rows - restored).square().sum(dim=1, keepdim=True)
        exponents = torch.where(error < least_error, unclipped - step, exponents)
        least_error = torch.minimum(error, least_error)
    return exponents


def _integers(rows: Tensor, exponents: Tensor, max_integer: int) -> Tensor:
    return (rows / _scales(exponents)).round().clamp(-max_integer, max_integer).int()


def _scales(exponents: Tensor) -> Tensor:
    return torch.exp2(exponents / _STEPS_PER_DOUBLING)


def _groups(tensor: Tensor) -> Tensor:
    """Cuts rows (R, C) into groups (G, 32); the last group of a row is padded with zeros."""
    missing = -tensor.shape[1] % GROUP
    return torch.nn.functional.pad(tensor, (0, missing)).reshape(-1, GROUP)


def _pack(values: Tensor) -> Tensor:
    """Returns integers in [-128, 127], Huffman-coded, as a tensor of bytes."""
    coder = zlib.compressobj(9, strategy=zlib.Z_HUFFMAN_ONLY)
    packed = coder.compress(values.to(torch.int8).numpy().tobytes()) + coder.flush()
    return torch.frombuffer(bytearray(packed), dtype=torch.uint8)


def _unpack(packed: Tensor, count: int) -> Tensor:
    """Returns `count` integers as int32, or raises a ValueError if there are fewer or more."""
    # Checked before any allocation: the count comes from the file, and a Huffman code has at least
    # one bit.
    if count > 8 * packed.numel():
        raise ValueError(f"expected {count} integers, the file has a different number")
    decoder = zlib.decompressobj()
    try:
        # The limit guards against decompression bombs; one byte more reveals a wrong count.
        values = decoder.decompress(packed.numpy().tobytes(), count + 1)
    except zlib.error as error:
        raise ValueError(f"damaged integers: {error}") from None
    if len(values) != count:
        raise ValueError(f"expected {count} integers, the file has a different number")
    return torch.frombuffer(bytearray(values), dtype=torch.int8).int()
