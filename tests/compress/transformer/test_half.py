import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from featherweight.data.dataset import Dataset
from featherweight.run import MODEL, TRANSFORMER
from tests.helpers.variants import made
from transformer_eval import classifier as transformer_classifier
from transformer_eval.classifier import TransformerClassifier

TEXTS = ["so happy 😂", "", "zzz", "i miss my dog, i feel so alone", "why, why, why???"]
TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}

both = pytest.mark.parametrize("dtype", ["fp16", "bf16"])


def num_bytes(tensors: dict[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


@pytest.fixture
def plain_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformer_classifier, "cpu_flags", lambda: ["avx2"])


@both
@pytest.mark.usefixtures("plain_cpu")
def test_a_halved_transformer_is_computed_in_32_bits_on_a_plain_cpu(
    bert: TransformerClassifier, dataset: Dataset, tmp_path: Path,
    caplog: pytest.LogCaptureFixture, dtype: Any,
) -> None:  # fmt: skip
    before = bert.logits(TEXTS)
    with caplog.at_level(logging.INFO, "featherweight"):
        half = made(bert, dataset, tmp_path, dtype)

    stored = safetensors.torch.load_file(tmp_path / TRANSFORMER / MODEL)
    assert {tensor.dtype for tensor in stored.values()} == {TYPES[dtype]}
    assert num_bytes(stored) * 2 == num_bytes(safetensors.torch.load_file(bert.folder / MODEL))
    network = copy.deepcopy(bert.model)
    network.load_state_dict({name: tensor.float() for name, tensor in stored.items()})
    with torch.inference_mode():
        rounded = network(**bert.encode(TEXTS)).logits.numpy()
    # Not to the last digit: some processors round a row by its place in the batch.
    assert half.logits(TEXTS) == pytest.approx(rounded, abs=1e-4)
    assert (half.name, half.labels) == (f"bert ({dtype})", bert.labels)
    assert (half.dtype, half.stored_dtype) == ("fp32", dtype)
    assert np.array_equal(bert.logits(TEXTS), before)
    (message,) = caplog.messages
    assert message.startswith(dtype) and "fp32" in message


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
def test_a_cpu_with_instructions_for_bf16_computes_in_it(
    bert: TransformerClassifier, dataset: Dataset, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, flag: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(transformer_classifier, "cpu_flags", lambda: [flag])
    with caplog.at_level(logging.INFO, "featherweight"):
        half = made(bert, dataset, tmp_path / "bf16", "bf16")
        assert caplog.messages == []
        other = made(bert, dataset, tmp_path / "fp16", "fp16")

    assert (half.dtype, half.stored_dtype, half.model.dtype) == ("bf16", "bf16", torch.bfloat16)
    assert (other.dtype, other.stored_dtype, other.model.dtype) == ("fp32", "fp16", torch.float32)
    before = bert.logits(TEXTS)
    assert half.logits(TEXTS).dtype == np.float32
    assert 0 < np.abs(half.logits(TEXTS) - before).max() < 0.1 * np.ptp(before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@both
def test_cuda_computes_a_halved_transformer_in_16_bits(
    bert: TransformerClassifier, dataset: Dataset, tmp_path: Path, dtype: Any
) -> None:
    made(bert, dataset, tmp_path, dtype)
    half = TransformerClassifier.load(tmp_path / TRANSFORMER, "cuda")
    assert (half.dtype, half.stored_dtype, half.model.dtype) == (dtype, dtype, TYPES[dtype])
    assert half.logits(TEXTS) == pytest.approx(bert.logits(TEXTS), abs=0.5)
