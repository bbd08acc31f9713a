import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from compress.lstm.half import halve
from featherweight import load
from featherweight.errors import UsageError
from lstm.classifier import TOKENIZER, TextClassifier

TEXTS = ["so happy 😂", "", "zzz", "i miss my dog, i feel so alone", "why, why, why???"]
TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}

both = pytest.mark.parametrize("dtype", ["fp16", "bf16"])


def network(content: bytes) -> dict[str, torch.Tensor]:
    """The tensors of a portable file without its tokenizer."""
    tensors = safetensors.torch.load(content)
    del tensors[TOKENIZER]
    return tensors


def fingerprint(content: bytes) -> str:
    """The hash over tensors and metadata; the order of the header may differ."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return str(header["__metadata__"]["sha256"])


def num_bytes(tensors: dict[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


@both
def test_every_number_takes_half_the_bytes(origin: TextClassifier, dtype: Any) -> None:
    half = halve(origin, dtype)
    stored = network(half.serialize())
    assert {tensor.dtype for tensor in stored.values()} == {TYPES[dtype]}
    assert num_bytes(stored) * 2 == num_bytes(network(origin.serialize()))
    # What is left is the tokenizer and the header.
    saved = origin.size_bytes() - half.size_bytes()
    assert saved == pytest.approx(num_bytes(stored), abs=100)
    assert half.num_parameters() == origin.num_parameters()


@both
def test_on_the_cpu_the_rounded_numbers_are_computed_in_32_bits(
    origin: TextClassifier, dtype: Any
) -> None:
    half = halve(origin, dtype)
    before = origin.logits(TEXTS)
    origin.module.load_state_dict(
        {name: t.to(TYPES[dtype]).float() for name, t in origin.module.state_dict().items()}
    )
    assert np.array_equal(half.logits(TEXTS), origin.logits(TEXTS))
    assert not np.array_equal(half.logits(TEXTS), before)
    assert (half.stored_dtype, half.dtype, half.device) == (dtype, "fp32", "cpu")


@both
def test_the_origin_does_not_change(origin: TextClassifier, dtype: Any) -> None:
    before = fingerprint(origin.serialize())
    halve(origin, dtype)
    assert fingerprint(origin.serialize()) == before


@both
def test_a_saved_copy_is_the_same_when_loaded(
    origin: TextClassifier, tmp_path: Path, dtype: Any
) -> None:
    half = halve(origin, dtype)
    path = tmp_path / "half.safetensors"
    half.save(path)
    loaded = load(path, "cpu")
    assert isinstance(loaded, TextClassifier)
    assert np.array_equal(loaded.logits(TEXTS), half.logits(TEXTS))
    assert (loaded.stored_dtype, loaded.dtype) == (dtype, "fp32")
    assert (loaded.name, loaded.labels) == (f"tiny ({dtype})", origin.labels)
    assert fingerprint(loaded.serialize()) == fingerprint(path.read_bytes())
    assert loaded.size_bytes() == path.stat().st_size


def test_the_two_formats_round_differently(origin: TextClassifier) -> None:
    # bf16 keeps 8 significant bits and fp16 keeps 11.
    exact = origin.logits(TEXTS)
    far = {
        dtype: np.abs(halve(origin, dtype).logits(TEXTS) - exact).max()  # type: ignore[arg-type]
        for dtype in TYPES
    }
    assert 0 < far["fp16"] < far["bf16"] < 0.1


@both
def test_a_log_message_says_that_a_cpu_computes_in_fp32(
    origin: TextClassifier, caplog: pytest.LogCaptureFixture, dtype: Any
) -> None:
    with caplog.at_level(logging.INFO, "featherweight"):
        halve(origin, dtype)
    (message,) = caplog.messages
    assert dtype in message
    assert "on the CPU it computes in fp32" in message


@pytest.mark.parametrize(("dtype", "again"), [("fp16", "fp16"), ("fp16", "bf16")])
def test_what_is_compressed_is_not_compressed_again(
    origin: TextClassifier, dtype: Any, again: Any
) -> None:
    half = halve(origin, dtype)
    with pytest.raises(UsageError, match=f"stored in {dtype} already") as caught:
        halve(half, again)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@both
def test_cuda_computes_in_half_precision(tiny_run: Path, dtype: Any) -> None:
    half = halve(load(tiny_run, "cuda"), dtype)
    assert (half.stored_dtype, half.dtype, half.device) == (dtype, dtype, "cuda")
    assert {tensor.dtype for tensor in half.module.state_dict().values()} == {TYPES[dtype]}
    on_cpu = halve(load(tiny_run, "cpu"), dtype).logits(TEXTS)
    assert half.logits(TEXTS) == pytest.approx(on_cpu, abs=0.05)
