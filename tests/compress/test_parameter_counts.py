from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig

from compress.parameter_counts import parameter_counts
from featherweight import load
from featherweight.run import TRANSFORMER, Run
from tests.helpers.variants import compressed
from transformer_eval.classifier import TransformerClassifier

KINDS = {"embeddings", "attention", "feed-forward", "normalization", "head"}
WORDS, WIDTH, INNER, LAYERS = 600, 32, 48, 2


@pytest.fixture
def bert(bert_run: Run) -> TransformerClassifier:
    classifier = load(bert_run.path, "cpu")
    assert isinstance(classifier, TransformerClassifier)
    return classifier


def num_parameters(kinds: Mapping[str, Any]) -> dict[str, int]:
    return {name: kind["parameters"] for name, kind in kinds.items()}


def saved(bert: TransformerClassifier, folder: Path) -> TransformerClassifier:
    return bert.with_network("tiny", bert.model, folder)


def test_kinds_of_parameters_of_a_transformer(bert: TransformerClassifier) -> None:
    kinds = parameter_counts(bert)
    assert set(kinds) == KINDS
    words, positions = bert.model.bert.embeddings.word_embeddings.weight.shape[0], 512
    assert num_parameters(kinds) == {
        "embeddings": (words + positions + 2) * WIDTH,
        "attention": LAYERS * 4 * (WIDTH * WIDTH + WIDTH),
        "feed-forward": LAYERS * (2 * WIDTH * INNER + WIDTH + INNER),
        "normalization": (2 * LAYERS + 1) * 2 * WIDTH,
        "head": (WIDTH * WIDTH + WIDTH) + (WIDTH * 3 + 3),
    }
    assert sum(kind["parameters"] for kind in kinds.values()) == bert.num_parameters()
    assert all(kind["formats"] == ["fp32"] for kind in kinds.values())


def test_zeros_are_counted(bert: TransformerClassifier) -> None:
    before = parameter_counts(bert)
    with torch.no_grad():
        bert.model.bert.encoder.layer[1].output.dense.weight.zero_()
    after = parameter_counts(bert)
    before["feed-forward"]["not_zero"] -= WIDTH * INNER
    assert after == before


@pytest.mark.parametrize(("dtype", "name"), [(torch.float16, "fp16"), (torch.bfloat16, "bf16")])
def test_the_format_is_that_of_the_file(
    bert: TransformerClassifier, tmp_path: Path, dtype: torch.dtype, name: str
) -> None:
    bert.model.to(dtype)
    halved = saved(bert, tmp_path / "halved")
    assert all(kind["formats"] == [name] for kind in parameter_counts(halved).values())


def test_parameters_in_int8_by_torchao(
    bert_run: Run, bert: TransformerClassifier, tmp_path: Path
) -> None:
    from compress.transformer.quantization import quantized

    before = parameter_counts(bert)
    bert.model.bert.encoder.layer[0].output.dense.weight.data[:, :8] = 0
    variant = quantized(bert, bert.model, "dynamic", "int8", tmp_path)
    kinds = parameter_counts(variant)
    assert num_parameters(kinds) == num_parameters(before)
    for name in ("embeddings", "attention", "feed-forward"):
        assert kinds[name]["formats"] == ["fp32", "int8"]
    assert kinds["normalization"]["formats"] == ["fp32"]
    zeroed = before["feed-forward"]["not_zero"] - kinds["feed-forward"]["not_zero"]
    assert WIDTH * 8 <= zeroed < WIDTH * 8 + 0.05 * before["feed-forward"]["parameters"]


@pytest.mark.parametrize(("flags", "name"), [
    ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "nf4"),
    ({"load_in_8bit": True}, "int8"),
])  # fmt: skip
def test_parameters_by_bitsandbytes(
    bert_run: Run, bert: TransformerClassifier, tmp_path: Path, flags: Any, name: str
) -> None:
    recipe = BitsAndBytesConfig(**flags, llm_int8_skip_modules=["classifier"])
    network = AutoModelForSequenceClassification.from_pretrained(
        bert_run.file(TRANSFORMER), quantization_config=recipe, device_map="cpu"
    )
    network.save_pretrained(tmp_path / "few-bits")
    before = parameter_counts(bert)
    kinds = parameter_counts(SimpleNamespace(model=network, folder=tmp_path / "few-bits"))  # type: ignore[arg-type]
    assert num_parameters(kinds) == num_parameters(before)
    assert name in kinds["attention"]["formats"]
    assert name in kinds["feed-forward"]["formats"]
    assert name not in kinds["embeddings"]["formats"]
    # A random matrix has few zeros, even after rounding.
    assert kinds["attention"]["not_zero"] > 0.8 * before["attention"]["not_zero"]


@pytest.mark.usefixtures("undrawn")
def test_adapters_are_a_separate_kind(bert_run: Run) -> None:
    variant = compressed(bert_run.path, "qlora", retraining_epochs=1, rank=4, max_f1_drop=1.0)
    kinds = variant.read_json("compression.json")["touched"]["after"]
    assert set(kinds) == KINDS | {"adapters"}
    assert kinds["adapters"]["formats"] == ["fp32"]
    assert "nf4" in kinds["attention"]["formats"]
    parameters = sum(kind["parameters"] for kind in kinds.values())
    assert parameters == load(variant.path, "cpu").num_parameters()
    assert kinds["head"]["parameters"] == (WIDTH * WIDTH + WIDTH) + (WIDTH * 3 + 3)
