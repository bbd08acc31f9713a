import copy
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file
from torchao.quantization import quantize_
from torchao.quantization.qat import QATConfig

from compress.config import CompressConfig
from compress.transformer import quantization
from compress.transformer.quantization import prepared, quantize, quantized, train_quantized
from featherweight import load
from featherweight.data.dataset import DataConfig, Dataset, load_dataset
from featherweight.errors import MissingExtraError
from featherweight.run import CHECKPOINTS, MODEL, TRANSFORMER, Run
from transformer_eval.classifier import TransformerClassifier
from transformer_eval.random_weights import build
from transformer_eval.registry import Pretrained
from transformer_eval.safe_trainer import SafeTrainer

TEXTS = ["so happy 😂", "", "zzz", "i miss my dog, i feel so alone tonight and the house is dark",
         "why, why, why???", "happy " * 60]  # fmt: skip
LABELS = ("sadness", "anger", "joy")
# Weights 25 times wider than usual, or all texts would get nearly equal logits.
_TINY = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
    "vocab_size": 600, "initializer_range": 0.5,
}  # fmt: skip
_SPECIAL = {"bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": _TINY,
    "distilbert": {
        "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48, "vocab_size": 600,
        "initializer_range": 0.5,
    },
    "roberta": {**_TINY, "max_position_embeddings": 130, "type_vocab_size": 1},
    "modernbert": {**_TINY, **_SPECIAL},
    "deberta-v2": {
        **_TINY, "pooler_hidden_size": 32, "type_vocab_size": 0, "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"], "position_buckets": 256, "norm_rel_ebd": "layer_norm",
        "share_att_key": True, "position_biased_input": False,
    },
    "electra": {**_TINY, "embedding_size": 16},
    "albert": {**_TINY, "embedding_size": 16},
}  # fmt: skip

each_family = pytest.mark.parametrize("family", FAMILIES)
each_mode = pytest.mark.parametrize("mode", ["dynamic", "weight-only"])


@pytest.fixture(scope="module")
def data(tiny_data: Path) -> Dataset:
    return load_dataset(DataConfig(data=str(tiny_data)))


@pytest.fixture(scope="module")
def folders(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A folder with a tiny transformer of each family."""
    parent = tmp_path_factory.mktemp("transformers")
    for family, sizes in FAMILIES.items():
        known = Pretrained(f"acme/tiny-{family}", family, sizes)
        build(known, data.train.texts, LABELS, parent / family)
    return {family: parent / family for family in FAMILIES}


@pytest.fixture
def bert(folders: Mapping[str, Path]) -> TransformerClassifier:
    return TransformerClassifier.load(folders["bert"], "cpu", "tiny")


def config(**flags: Any) -> CompressConfig:
    return CompressConfig(retraining_epochs=2, retraining_rate=1e-3, **flags)


def int8(classifier: TransformerClassifier, folder: Path, **flags: Any) -> TransformerClassifier:
    nothing: Any = None  # the data changes nothing
    return quantize(classifier, Run(folder), config(**flags), nothing, folder)


@torch.inference_mode()
def answers(classifier: TransformerClassifier, network: Any) -> npt.NDArray[np.float32]:
    logits: npt.NDArray[np.float32] = network.eval()(**classifier.encode(TEXTS)).logits.numpy()
    return logits


def stored(classifier: TransformerClassifier) -> dict[str, torch.Tensor]:
    return load_file(classifier.folder / MODEL)


def parts(name: str) -> list[str]:
    """What a file holds of a weight: integers, scales and zero points."""
    stem = name.removesuffix(".weight")
    return [f"{stem}._weight_{part}" for part in ("qdata", "scale", "zero_point")]


# int8


@each_family
@each_mode
def test_what_is_loaded_answers_as_what_was_stored(
    folders: Mapping[str, Path], tmp_path: Path, family: str, mode: Any
) -> None:
    origin = TransformerClassifier.load(folders[family], "cpu")
    network = copy.deepcopy(origin.model)
    variant = quantized(origin, network, mode, "prune+int8", tmp_path)

    # Not to the last digit: some processors round a row by its place in the batch.
    assert variant.logits(TEXTS) == pytest.approx(answers(variant, network), abs=1e-4)
    again = load(tmp_path / TRANSFORMER, "cpu")
    assert np.array_equal(again.logits(TEXTS), variant.logits(TEXTS))
    assert (variant.name, variant.labels) == (f"{family} (prune+int8)", LABELS)
    assert (variant.dtype, variant.stored_dtype, again.dtype) == ("int8", "int8", "int8")
    assert variant.num_parameters() == origin.num_parameters()


@each_family
def test_words_and_linear_layers_are_integers_and_the_head_is_not(
    folders: Mapping[str, Path], tmp_path: Path, family: str
) -> None:
    origin = TransformerClassifier.load(folders[family], "cpu")
    before, after = stored(origin), stored(int8(origin, tmp_path))
    encoder = origin.model.base_model
    expected = {
        f"{origin.model.base_model_prefix}.{name}.weight"
        for name, module in encoder.named_modules()
        if isinstance(module, torch.nn.Linear) or module is encoder.get_input_embeddings()
    } - {"bert.pooler.dense.weight", "albert.pooler.weight"}
    assert len(expected) > 4

    integers = {it.replace("._weight_qdata", ".weight") for it in after if "_qdata" in it}
    assert integers == expected
    for name in integers:
        numbers, scale, zero = (after[part] for part in parts(name))
        assert numbers.dtype == torch.int8
        assert not zero.any()
        # A scale a row, and no number further away than half a step.
        largest = before[name].abs().amax(dim=1, keepdim=True)
        torch.testing.assert_close(scale, largest / 127.5)
        assert ((numbers * scale - before[name]).abs() <= 0.5001 * scale).all()
    for name in before.keys() - integers:  # the head among them
        assert torch.equal(after[name], before[name])


def test_integers_take_a_quarter_of_the_bytes(bert: TransformerClassifier, tmp_path: Path) -> None:
    variant = int8(bert, tmp_path)
    before, after = stored(bert), stored(variant)
    small = [name for name in before if parts(name)[0] in after]
    spared = sum(3 * before[name].numel() for name in small)
    spent = sum(after[part].nbytes for name in small for part in parts(name)[1:])
    tensors = sum(it.nbytes for it in before.values()) - sum(it.nbytes for it in after.values())
    assert tensors == spared - spent > 0
    assert variant.size_bytes() < bert.size_bytes()
    kinds = {path.suffix for path in (tmp_path / TRANSFORMER).iterdir()}
    assert kinds == {".json", ".safetensors"}


def test_weight_only_computes_in_floats_with_the_rounded_weights(
    bert: TransformerClassifier, tmp_path: Path
) -> None:
    variant = int8(bert, tmp_path, int8_mode="weight-only")
    network = copy.deepcopy(bert.model)
    for name in stored(bert):
        numbers, scale, _ = (stored(variant).get(part) for part in parts(name))
        if numbers is not None and scale is not None:
            network.get_parameter(name).data = numbers * scale

    assert variant.logits(TEXTS) == pytest.approx(answers(bert, network), abs=1e-4)
    dynamic = int8(bert, tmp_path / "dynamic").logits(TEXTS)
    assert np.abs(dynamic - variant.logits(TEXTS)).max() > 1e-3


@each_mode
def test_answers_change_a_little_and_the_origin_not_at_all(
    bert: TransformerClassifier, tmp_path: Path, mode: Any
) -> None:
    before = bert.logits(TEXTS)
    after = int8(bert, tmp_path, int8_mode=mode).logits(TEXTS)
    assert np.array_equal(bert.logits(TEXTS), before)
    assert 0 < np.abs(after - before).max() < 0.2 * np.ptp(before)


def test_padding_changes_no_answer(bert: TransformerClassifier, tmp_path: Path) -> None:
    variant = int8(bert, tmp_path)
    alone = [variant.forward(variant.encode([text]))[0] for text in TEXTS]
    together = variant.forward(variant.encode(TEXTS))
    # The error of fp32 decides of numbers half-way, which the largest of each token is.
    assert together == pytest.approx(np.array(alone), abs=0.05 * float(np.ptp(together)))


def test_a_copy_of_the_network_looks_up_words_of_its_own(
    bert: TransformerClassifier, tmp_path: Path
) -> None:
    variant = int8(bert, tmp_path)
    twin = copy.deepcopy(variant.model)
    before = answers(variant, twin)
    with torch.no_grad():
        variant.model.get_input_embeddings().weight.qdata.zero_()
    assert np.array_equal(answers(variant, twin), before)
    assert not np.array_equal(answers(variant, variant.model), before)


# Without torchao


def test_without_torchao_nothing_is_quantized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    monkeypatch.delitem(sys.modules, "compress.transformer.quantization")
    with pytest.raises(MissingExtraError, match=r"torchao.*featherweight\[transformers\]"):
        importlib.import_module("compress.transformer.quantization")


def test_without_torchao_nothing_quantized_is_loaded(
    bert: TransformerClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = int8(bert, tmp_path).folder
    monkeypatch.setitem(sys.modules, "torchao.core.config", None)
    with pytest.raises(MissingExtraError, match=r"torchao.*featherweight\[transformers\]"):
        load(folder, "cpu")


# Quantization-aware training


@each_family
@each_mode
def test_training_computes_what_the_integers_will(
    folders: Mapping[str, Path], tmp_path: Path, family: str, mode: Any
) -> None:
    origin = TransformerClassifier.load(folders[family], "cpu")
    network = prepared(copy.deepcopy(origin.model), mode)
    assert network.state_dict().keys() == origin.model.state_dict().keys()
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name, module in network.named_modules():
        if hasattr(module, "weight_fake_quantizer"):
            module.register_forward_hook(
                lambda _, given, made, name=name: seen.update({name: (given[0], made)})
            )
    rounded = answers(origin, network)
    quantize_(network, QATConfig(step="convert"), lambda *_: True)
    variant = quantized(origin, network, mode, "qat", tmp_path)

    assert len(seen) == sum("_qdata" in name for name in stored(variant))
    for name, (given, made) in seen.items():
        torch.testing.assert_close(
            variant.model.get_submodule(name)(given), made, atol=1e-4, rtol=1e-4
        )
    # From layer to layer, the error of fp32 decides of numbers half-way between integers.
    error = np.abs(rounded - origin.logits(TEXTS)).mean()
    apart = np.abs(variant.logits(TEXTS) - rounded).mean()
    assert apart < (0.7 if mode == "dynamic" else 1e-3) * error


@each_mode
def test_what_was_trained_is_stored_as_int8_is(
    bert: TransformerClassifier,
    data: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: Any,
) -> None:
    monkeypatch.setattr(quantization, "macro_f1", lambda *_: 0.5)
    flags = config(int8_mode=mode)
    trained = train_quantized(bert, Run(tmp_path), flags, data, tmp_path)
    plain = int8(bert, tmp_path / "int8", int8_mode=mode)

    assert trained.name == "tiny (qat)"
    assert trained.size_bytes() == pytest.approx(plain.size_bytes(), abs=20)
    ours, theirs = stored(trained), stored(plain)
    assert {name: (it.dtype, it.shape) for name, it in ours.items()} == {
        name: (it.dtype, it.shape) for name, it in theirs.items()
    }
    moved = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert "bert.embeddings.word_embeddings._weight_qdata" in moved
    assert "bert.encoder.layer.0.attention.self.query._weight_qdata" in moved
    assert "classifier.weight" in moved
    assert trained.dtype == "int8"


def test_nothing_is_learned_if_rounding_alone_is_better(
    bert: TransformerClassifier, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.4, 0.5])  # what was learned, and what it started from
    monkeypatch.setattr(quantization, "macro_f1", lambda *_: next(scores))
    kept = train_quantized(bert, Run(tmp_path), config(), data, tmp_path)
    plain = int8(bert, tmp_path / "int8")
    assert kept.name == "tiny (qat)"
    assert np.array_equal(kept.logits(["so happy", "alone"]), plain.logits(["so happy", "alone"]))


def test_a_training_that_was_cut_off_ends_as_one_that_was_not(
    bert: TransformerClassifier, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    expected = train_quantized(bert, Run(whole), config(), data, whole)
    steps = []

    def stop_in_the_second_epoch(*given: Any, **more: Any) -> Any:
        steps.append(1)
        if len(steps) == 4:  # two an epoch: 36 texts in batches of 32
            raise KeyboardInterrupt
        return step(*given, **more)

    with monkeypatch.context() as patch:
        step = SafeTrainer.training_step
        patch.setattr(SafeTrainer, "training_step", stop_in_the_second_epoch)
        with pytest.raises(KeyboardInterrupt):
            train_quantized(bert, Run(cut), config(), data, cut)
    assert list((cut / CHECKPOINTS).glob("checkpoint-*"))

    resumed = train_quantized(bert, Run(cut), config(), data, cut)

    ours, theirs = stored(resumed), stored(expected)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
