import math
import zlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lstm.storage import GROUP, Format, restore, rounded, store

FORMATS: list[Format] = ["fp32", "fp16", "bf16", "int8", "int4", "sparse"]
# Rows of one group, of less, and of more but not a multiple; one number.
SHAPES = [(5, GROUP), (3, 7), (4, 3 * GROUP + 5), (1, 1)]


def matrix(*shape: int) -> Tensor:
    tensor = torch.randn(shape)
    tensor[0] = 0
    tensor[-1] *= 1000
    return tensor


def num_bytes(stored: dict[str, Tensor]) -> int:
    return sum(part.nbytes for part in stored.values())


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_storing_restored_values_changes_nothing(kind: Format, shape: tuple[int, int]) -> None:
    tensor = matrix(*shape)
    once = restore(store(tensor, kind), kind, tensor.shape)
    assert once.shape == tensor.shape
    assert once.dtype == torch.float32
    assert torch.equal(restore(store(once, kind), kind, tensor.shape), once)
    assert torch.equal(rounded(tensor, kind), once)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["int8", "int4"]))
def test_rounding_again_changes_nothing(seed: int, kind: Format) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensor = torch.randn(8, 40, generator=generator)
    tensor *= torch.exp(4 * torch.randn(8, 1, generator=generator))
    once = rounded(tensor, kind)
    assert torch.equal(rounded(once, kind), once)
    assert torch.equal(restore(store(once, kind), kind, tensor.shape), once)


@pytest.mark.parametrize("kind", ["fp32", "sparse"])
def test_lossless_formats(kind: Format) -> None:
    tensor = matrix(9, 13) * (torch.rand(9, 13) > 0.6)
    assert torch.equal(rounded(tensor, kind), tensor)


def test_int8_formula() -> None:
    tensor = torch.randn(6, 11) * torch.tensor([[1.0], [0.5], [3.0], [1e-9], [0.0], [0.01]])
    largest = math.ceil(16 * math.log2(tensor.abs().max().item() / 127))
    expected = []
    for row in tensor:
        needed = row.abs().max().item() / 127
        n = math.ceil(16 * math.log2(needed)) if needed else -math.inf
        scale = 2 ** (max(n, -999) / 16)
        kept = n >= largest - 255
        expected.append((row / scale).round().clamp(-127, 127) * scale * kept)
    assert torch.allclose(rounded(tensor, "int8"), torch.stack(expected), rtol=1e-5, atol=0)


def test_the_error_of_int8_is_half_a_step() -> None:
    tensor = torch.randn(50, 40)
    steps = tensor.abs().amax(dim=1, keepdim=True) / 127 * 2 ** (1 / 16)
    assert ((rounded(tensor, "int8") - tensor).abs() <= steps / 2 * 1.0001).all()


def test_int4_has_fifteen_values_per_group_and_clips_to_reduce_the_error() -> None:
    tensor = torch.randn(8, 2 * GROUP)
    wanted = tensor.reshape(-1, GROUP)
    groups = rounded(tensor, "int4").reshape(-1, GROUP)
    assert max(len(group.unique()) for group in groups) <= 15
    scales = wanted.abs().amax(dim=1, keepdim=True) / 7
    plain = (wanted / scales).round().clamp(-7, 7) * scales
    assert (groups - wanted).square().sum() < (plain - wanted).square().sum()


def test_groups_are_independent() -> None:
    tensor = torch.randn(1, 2 * GROUP)
    louder = tensor.clone()
    louder[:, GROUP:] *= 2**10  # a multiple of the scale steps
    expected, actual = (rounded(one, "int4")[:, :GROUP] for one in (tensor, louder))
    assert torch.allclose(actual, expected, atol=0.1 * expected.abs().max().item())


def test_integers_are_entropy_coded() -> None:
    tensor = torch.randn(400, 64)
    numbers = tensor.numel()
    assert num_bytes(store(tensor, "int8")) < 1.0 * numbers
    assert num_bytes(store(tensor, "int4")) < (0.5 + 1 / 16) * numbers  # scales take a sixteenth
    few = tensor * (torch.rand(400, 64) < 0.1)
    assert num_bytes(store(few, "int8")) < 0.3 * numbers
    assert num_bytes(store(few, "sparse")) < 0.65 * numbers  # fp32: 4 bytes each


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_a_damaged_code_is_an_error(kind: Format) -> None:
    tensor = torch.randn(4, GROUP)
    stored = store(tensor, kind)
    stored[f".{kind}"] = stored[f".{kind}"].clone()
    stored[f".{kind}"][:4] = 255
    with pytest.raises(ValueError, match="damaged"):
        restore(stored, kind, tensor.shape)


@pytest.mark.parametrize("rows", [3, 5])
@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_code_of_wrong_length_is_an_error(kind: Format, rows: int) -> None:
    stored = store(torch.randn(4, GROUP), kind)
    with pytest.raises(ValueError, match="the file has a different number"):
        restore(stored, kind, torch.Size((rows, GROUP)))


def test_decompression_is_limited() -> None:
    bomb = torch.frombuffer(bytearray(zlib.compress(bytes(10**8), 9)), dtype=torch.uint8)
    stored = store(torch.randn(4, GROUP), "int8") | {".int8": bomb}
    with pytest.raises(ValueError, match="the file has a different number"):
        restore(stored, "int8", torch.Size((4, GROUP)))


@pytest.mark.parametrize("kind", ["int8", "int4", "sparse"])
def test_a_missing_part_is_an_error(kind: Format) -> None:
    tensor = torch.randn(4, GROUP)
    stored = store(tensor, kind)
    stored.popitem()
    with pytest.raises(KeyError):
        restore(stored, kind, tensor.shape)
