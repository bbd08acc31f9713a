import json
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from featherweight.errors import WeightsError
from featherweight.sparse import (
    SPARSE_FORMAT,
    is_sparse,
    make_sparse,
    read_sparse,
    restore_sparse,
    smaller_when_sparse,
    store_sparse,
)
from featherweight.weights import read_metadata


def pruned(*shape: int, sparsity: float = 0.7, dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.randn(shape) * (torch.rand(shape) >= sparsity)).to(dtype)


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    return {
        "few": pruned(9, 13),
        "none": torch.zeros(5, 3),
        "all": torch.randn(6, 7),
        "half": pruned(16, 8, dtype=torch.float16),
        "vector": pruned(50),
        "ids": torch.arange(1, 13).reshape(3, 4),
    }


@pytest.fixture
def path(tensors: dict[str, Tensor], tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(tensors, path, {"format": "pt"})
    make_sparse(path)
    return path


@pytest.mark.parametrize("shape", [(9, 13), (1, 1), (4, 8), (7,), (3, 0), (2, 3, 5)])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_sparse_storage_is_lossless(
    shape: tuple[int, ...], sparsity: float, dtype: torch.dtype
) -> None:
    tensor = pruned(*shape, sparsity=sparsity, dtype=dtype)
    restored = restore_sparse(store_sparse(tensor), shape)
    assert restored.dtype == dtype
    assert torch.equal(restored, tensor)


def test_the_bits_are_in_the_order_of_the_numbers() -> None:
    stored = store_sparse(torch.tensor([[0.0, 2.5, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 4.0]]))
    assert stored[".kept"].tolist() == [0b01010000, 0b10000000]
    assert stored[".values"].tolist() == [2.5, -1.0, 4.0]


@pytest.mark.parametrize("zeros", range(6))
def test_smaller_when_sparse_compares_sizes(zeros: int) -> None:
    tensor = torch.ones(8, 12)  # 12 bytes of bits, 4 per number
    tensor.flatten()[:zeros] = 0
    sparse = sum(part.nbytes for part in store_sparse(tensor).values())
    assert smaller_when_sparse(tensor) == (sparse < tensor.nbytes) == (zeros > 3)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        (".kept", lambda part: part[:-1]),
        (".kept", lambda part: torch.cat([part, part])),
        (".kept", lambda part: part.short()),
        (".kept", lambda part: part ^ 255),
        (".values", lambda part: part[:-1]),
        (".values", lambda part: torch.cat([part, part])),
        (".values", lambda part: part.reshape(1, -1)),
    ],
)
def test_parts_of_other_sizes_are_refused(part: str, change: object) -> None:
    stored = store_sparse(pruned(10, 10))
    stored[part] = change(stored[part])  # type: ignore[operator]
    with pytest.raises(ValueError, match="expected"):
        restore_sparse(stored, (10, 10))


def test_huge_shape_allocates_nothing() -> None:
    with pytest.raises(ValueError, match="expected"):
        restore_sparse(store_sparse(torch.zeros(8, 8)), (2**40, 2**20))


# The file


def test_sparse_file_has_equal_tensors_and_is_smaller(
    tensors: dict[str, Tensor], path: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole.safetensors"
    safetensors.torch.save_file({"it": pruned(300, 200)}, whole)
    before = whole.stat().st_size
    make_sparse(whole)
    assert whole.stat().st_size == pytest.approx((0.3 + 1 / 32) * before, rel=0.03)
    restored = read_sparse(path)
    assert restored.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert restored[name].dtype == tensor.dtype
        assert torch.equal(restored[name], tensor)


def test_only_matrices_that_get_smaller_are_sparse(path: Path) -> None:
    assert json.loads(read_metadata(path)["shapes"]) == {
        "few": [9, 13], "none": [5, 3], "half": [16, 8],
    }  # fmt: skip
    names = safetensors.torch.load_file(path).keys()
    assert {"few.kept", "few.values", "all", "vector", "ids"} <= names
    assert "few" not in names


def test_sparse_file_is_recognized(path: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.safetensors"
    safetensors.torch.save_file({"it": torch.zeros(2, 2)}, plain, {"format": "pt"})
    assert read_metadata(path)["format"] == SPARSE_FORMAT
    assert is_sparse(path)
    assert not is_sparse(plain)


def test_writing_that_fails_leaves_the_old_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()

    def full(*_: object) -> bytes:
        raise OSError("no space left")

    monkeypatch.setattr(safetensors.torch, "save", full)
    with pytest.raises(OSError, match="no space"):
        make_sparse(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def rewrite(path: Path, **metadata: str) -> None:
    """Replaces entries of the metadata."""
    tensors = safetensors.torch.load_file(path)
    path.write_bytes(safetensors.torch.save(tensors, read_metadata(path) | metadata))


@pytest.mark.parametrize(
    "shapes",
    [
        "", "[]", "7", '{"few": 3}', '{"few": [9, "13"]}', '{"few": [9, 14]}', '{"few": [-9, -13]}',
        '{"lost": [9, 13]}', '{"few": [9.0, 13.0]}', '{"few": null}', '{"few": [1000000, 1000000]}',
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit_are_refused_in_one_line(path: Path, shapes: str) -> None:
    rewrite(path, shapes=shapes)
    with pytest.raises(WeightsError, match=r"model\.safetensors is truncated or damaged") as caught:
        read_sparse(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_truncated_file_is_refused(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsError, match="truncated"):
        read_sparse(path)


def test_a_damaged_bit_is_noticed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    start = json.loads(content[8 : 8 + length])["few.kept"]["data_offsets"][0]
    content[8 + length + start] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="damaged"):
        read_sparse(path)
