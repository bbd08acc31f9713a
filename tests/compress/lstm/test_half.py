import copy
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from compress.config import HalfConfig
from compress.lstm.half import halve, halve_transformer
from featherweight import load
from featherweight.baselines import MostFrequentClass
from featherweight.data.dataset import DataConfig, Split, load_dataset
from featherweight.errors import UsageError
from featherweight.run import MODEL, TRANSFORMER
from lstm.classifier import TOKENIZER, TextClassifier
from transformer_eval import classifier as transformer_classifier
from transformer_eval.classifier import TransformerClassifier
from transformer_eval.random_weights import build
from transformer_eval.registry import Pretrained

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
    half = halve(origin, HalfConfig(dtype))
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
    half = halve(origin, HalfConfig(dtype))
    before = origin.logits(TEXTS)
    origin.module.load_state_dict(
        {name: t.to(TYPES[dtype]).float() for name, t in origin.module.state_dict().items()}
    )
    assert np.array_equal(half.logits(TEXTS), origin.logits(TEXTS))
    assert not np.array_equal(half.logits(TEXTS), before)
    assert (half.stored_dtype, half.dtype, half.device) == (dtype, "fp32", "cpu")


@both
def test_the_origin_stays_as_it_was(origin: TextClassifier, dtype: Any) -> None:
    before = fingerprint(origin.serialize())
    halve(origin, HalfConfig(dtype))
    assert fingerprint(origin.serialize()) == before


@both
def test_a_saved_copy_is_the_same_when_loaded(
    origin: TextClassifier, tmp_path: Path, dtype: Any
) -> None:
    half = halve(origin, HalfConfig(dtype))
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
        dtype: np.abs(halve(origin, HalfConfig(dtype)).logits(TEXTS) - exact).max()  # type: ignore[arg-type]
        for dtype in TYPES
    }
    assert 0 < far["fp16"] < far["bf16"] < 0.1


@both
def test_it_is_said_that_a_cpu_computes_in_32_bits(
    origin: TextClassifier, caplog: pytest.LogCaptureFixture, dtype: Any
) -> None:
    with caplog.at_level(logging.INFO, "featherweight"):
        halve(origin, HalfConfig(dtype))
    (message,) = caplog.messages
    assert dtype in message
    assert "on the CPU it computes in fp32" in message


@both
@pytest.mark.parametrize("again", ["fp16", "bf16"])
def test_what_is_compressed_is_not_compressed_again(
    origin: TextClassifier, dtype: Any, again: Any
) -> None:
    half = halve(origin, HalfConfig(dtype))
    with pytest.raises(UsageError, match=f"stored in {dtype} already") as caught:
        halve(half, HalfConfig(again))
    assert "\n" not in str(caught.value)


def test_only_the_lstm_is_halved() -> None:
    split = Split("train", ("a", "b"), np.array([0, 1]), ("x", "y"))
    with pytest.raises(UsageError, match="most frequent class"):
        halve(MostFrequentClass(split, ("x", "y")), HalfConfig())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@both
def test_cuda_computes_in_half_precision(tiny_run: Path, dtype: Any) -> None:
    half = halve(load(tiny_run, "cuda"), HalfConfig(dtype))
    assert (half.stored_dtype, half.dtype, half.device) == (dtype, dtype, "cuda")
    assert {tensor.dtype for tensor in half.module.state_dict().values()} == {TYPES[dtype]}
    on_cpu = halve(load(tiny_run, "cpu"), HalfConfig(dtype)).logits(TEXTS)
    assert half.logits(TEXTS) == pytest.approx(on_cpu, abs=0.05)


# Transformers


@pytest.fixture(scope="module")
def bert(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> TransformerClassifier:
    folder = tmp_path_factory.mktemp("transformers") / "tiny"
    sizes = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 48, "vocab_size": 600, "initializer_range": 0.5,
    }  # fmt: skip
    texts = load_dataset(DataConfig(data=str(tiny_data))).train.texts
    build(Pretrained("acme/tiny", "bert", sizes), texts, ("sadness", "anger", "joy"), folder)
    return TransformerClassifier.load(folder, "cpu")


@pytest.fixture
def plain_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformer_classifier, "cpu_flags", lambda: ["avx2"])


@both
@pytest.mark.usefixtures("plain_cpu")
def test_a_halved_transformer_is_computed_in_32_bits_on_a_plain_cpu(
    bert: TransformerClassifier, tmp_path: Path, caplog: pytest.LogCaptureFixture, dtype: Any
) -> None:
    before = bert.logits(TEXTS)
    with caplog.at_level(logging.INFO, "featherweight"):
        half = halve_transformer(bert, HalfConfig(dtype), tmp_path)

    stored = safetensors.torch.load_file(tmp_path / TRANSFORMER / MODEL)
    assert {tensor.dtype for tensor in stored.values()} == {TYPES[dtype]}
    assert num_bytes(stored) * 2 == num_bytes(safetensors.torch.load_file(bert.folder / MODEL))
    network = copy.deepcopy(bert.model)
    network.load_state_dict({name: tensor.float() for name, tensor in stored.items()})
    with torch.inference_mode():
        rounded = network(**bert.encode(TEXTS)).logits.numpy()
    # Not to the last digit: some processors round a row by its place in the batch.
    assert half.logits(TEXTS) == pytest.approx(rounded, abs=1e-4)
    assert (half.name, half.labels) == (f"tiny ({dtype})", bert.labels)
    assert (half.dtype, half.stored_dtype) == ("fp32", dtype)
    assert np.array_equal(bert.logits(TEXTS), before)
    (message,) = caplog.messages
    assert message.startswith(dtype) and "fp32" in message


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
def test_a_cpu_with_instructions_for_bf16_computes_in_it(
    bert: TransformerClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, flag: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(transformer_classifier, "cpu_flags", lambda: [flag])
    with caplog.at_level(logging.INFO, "featherweight"):
        half = halve_transformer(bert, HalfConfig("bf16"), tmp_path / "bf16")
        assert caplog.messages == []
        other = halve_transformer(bert, HalfConfig("fp16"), tmp_path / "fp16")

    assert (half.dtype, half.stored_dtype, half.model.dtype) == ("bf16", "bf16", torch.bfloat16)
    assert (other.dtype, other.stored_dtype, other.model.dtype) == ("fp32", "fp16", torch.float32)
    before = bert.logits(TEXTS)
    assert half.logits(TEXTS).dtype == np.float32
    assert 0 < np.abs(half.logits(TEXTS) - before).max() < 0.1 * np.ptp(before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@both
def test_cuda_computes_a_halved_transformer_in_16_bits(
    bert: TransformerClassifier, tmp_path: Path, dtype: Any
) -> None:
    halve_transformer(bert, HalfConfig(dtype), tmp_path)
    half = TransformerClassifier.load(tmp_path / TRANSFORMER, "cuda")
    assert (half.dtype, half.stored_dtype, half.model.dtype) == (dtype, dtype, TYPES[dtype])
    assert half.logits(TEXTS) == pytest.approx(bert.logits(TEXTS), abs=0.5)
