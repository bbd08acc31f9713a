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

from compress.origin import Origin
from compress.transformer.quantization import prepared, quantized
from featherweight import load
from featherweight.data.dataset import Dataset
from featherweight.errors import MissingExtraError
from featherweight.run import CHECKPOINTS, MODEL, TRANSFORMER
from tests.helpers.variants import FAMILIES, made
from transformer_eval.classifier import TransformerClassifier
from transformer_eval.safe_trainer import SafeTrainer

TEXTS = ["so happy 😂", "", "zzz", "i miss my dog, i feel so alone tonight and the house is dark",
         "why, why, why???", "happy " * 60]  # fmt: skip
each_family = pytest.mark.parametrize("family", FAMILIES)
each_mode = pytest.mark.parametrize("mode", ["dynamic", "weight-only"])
each_family_and_mode = pytest.mark.parametrize(
    ("family", "mode"), [*((family, "dynamic") for family in FAMILIES), ("bert", "weight-only")]
)


RETRAINING = {"retraining_epochs": 2, "retraining_rate": 1e-3}


@pytest.fixture
def int8(bert: TransformerClassifier, dataset: Dataset, tmp_path: Path) -> TransformerClassifier:
    """A BERT in int8 that computes in integers."""
    return made(bert, dataset, tmp_path / "int8", "int8")


@torch.inference_mode()
def logits_of(classifier: TransformerClassifier, network: Any) -> npt.NDArray[np.float32]:
    logits: npt.NDArray[np.float32] = network.eval()(**classifier.encode(TEXTS)).logits.numpy()
    return logits


def stored(classifier: TransformerClassifier) -> dict[str, torch.Tensor]:
    return load_file(classifier.folder / MODEL)


def parts(name: str) -> list[str]:
    """What a file holds of a weight: integers, scales and zero points."""
    stem = name.removesuffix(".weight")
    return [f"{stem}._weight_{part}" for part in ("qdata", "scale", "zero_point")]


# int8


@each_family_and_mode
def test_a_loaded_copy_gives_the_same_logits(
    folders: Mapping[str, Path], tmp_path: Path, family: str, mode: Any
) -> None:
    origin = TransformerClassifier.load(folders[family], "cpu")
    network = copy.deepcopy(origin.model)
    variant = quantized(origin, network, mode, "prune+int8", tmp_path)

    # Not to the last digit: some processors round a row by its place in the batch.
    assert variant.logits(TEXTS) == pytest.approx(logits_of(variant, network), abs=1e-4)
    again = load(tmp_path / TRANSFORMER, "cpu")
    assert np.array_equal(again.logits(TEXTS), variant.logits(TEXTS))
    assert (variant.name, variant.labels) == (f"{family} (prune+int8)", origin.labels)
    assert (variant.dtype, variant.stored_dtype, again.dtype) == ("int8", "int8", "int8")
    assert variant.num_parameters() == origin.num_parameters()


@each_family
def test_words_and_linear_layers_are_integers_and_the_head_is_not(
    folders: Mapping[str, Path], dataset: Dataset, tmp_path: Path, family: str
) -> None:
    origin = TransformerClassifier.load(folders[family], "cpu")
    before, after = stored(origin), stored(made(origin, dataset, tmp_path, "int8"))
    encoder = origin.model.base_model
    expected = {
        f"{origin.model.base_model_prefix}.{name}.weight"
        for name, module in encoder.named_modules()
        if isinstance(module, torch.nn.Linear) or module is encoder.get_input_embeddings()
    } - {"bert.pooler.dense.weight", "albert.pooler.weight"}
    assert len(expected) > 4

    integers = {name.replace("._weight_qdata", ".weight") for name in after if "_qdata" in name}
    assert integers == expected
    for name in integers:
        numbers, scale, zero = (after[part] for part in parts(name))
        assert numbers.dtype == torch.int8
        assert not zero.any()
        # One scale per row, and a rounding error of at most half a step.
        largest = before[name].abs().amax(dim=1, keepdim=True)
        torch.testing.assert_close(scale, largest / 127.5)
        assert ((numbers * scale - before[name]).abs() <= 0.5001 * scale).all()
    for name in before.keys() - integers:  # the head among them
        assert torch.equal(after[name], before[name])


def test_integers_take_a_quarter_of_the_bytes(
    bert: TransformerClassifier, int8: TransformerClassifier
) -> None:
    before, after = stored(bert), stored(int8)
    small = [name for name in before if parts(name)[0] in after]
    spared = sum(3 * before[name].numel() for name in small)
    spent = sum(after[part].nbytes for name in small for part in parts(name)[1:])
    sizes = [sum(tensor.nbytes for tensor in tensors.values()) for tensors in (before, after)]
    assert sizes[0] - sizes[1] == spared - spent > 0
    assert int8.size_bytes() < bert.size_bytes()
    assert {path.suffix for path in int8.folder.iterdir()} == {".json", ".safetensors"}


def test_weight_only_computes_in_floats_with_the_rounded_weights(
    bert: TransformerClassifier, int8: TransformerClassifier, dataset: Dataset, tmp_path: Path
) -> None:
    variant = made(bert, dataset, tmp_path, "int8", int8_mode="weight-only")
    network = copy.deepcopy(bert.model)
    for name in stored(bert):
        numbers, scale, _ = (stored(variant).get(part) for part in parts(name))
        if numbers is not None and scale is not None:
            network.get_parameter(name).data = numbers * scale

    assert variant.logits(TEXTS) == pytest.approx(logits_of(bert, network), abs=1e-4)
    assert np.abs(int8.logits(TEXTS) - variant.logits(TEXTS)).max() > 1e-3


@each_mode
def test_logits_change_slightly_and_the_origin_does_not(
    bert: TransformerClassifier, dataset: Dataset, tmp_path: Path, mode: str
) -> None:
    before = bert.logits(TEXTS)
    after = made(bert, dataset, tmp_path, "int8", int8_mode=mode).logits(TEXTS)
    assert np.array_equal(bert.logits(TEXTS), before)
    assert 0 < np.abs(after - before).mean() < 0.1 * np.ptp(before)


def test_padding_does_not_change_logits(int8: TransformerClassifier) -> None:
    single = [int8.forward(int8.encode([text]))[0] for text in TEXTS]
    batch = int8.forward(int8.encode(TEXTS))
    # Rounding errors of fp32 decide where the largest number of a token is rounded to.
    assert batch == pytest.approx(np.array(single), abs=0.05 * float(np.ptp(batch)))


def test_a_copy_of_the_network_has_its_own_word_embeddings(int8: TransformerClassifier) -> None:
    twin = copy.deepcopy(int8.model)
    before = logits_of(int8, twin)
    with torch.no_grad():
        int8.model.get_input_embeddings().weight.qdata.zero_()
    assert np.array_equal(logits_of(int8, twin), before)
    assert not np.array_equal(logits_of(int8, int8.model), before)


# Without torchao


def test_without_torchao_nothing_is_quantized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    monkeypatch.delitem(sys.modules, "compress.transformer.quantization")
    with pytest.raises(MissingExtraError, match=r"torchao.*featherweight\[transformers\]"):
        importlib.import_module("compress.transformer.quantization")


def test_without_torchao_nothing_quantized_is_loaded(
    int8: TransformerClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchao.core.config", None)
    with pytest.raises(MissingExtraError, match=r"torchao.*featherweight\[transformers\]"):
        load(int8.folder, "cpu")


# Quantization-aware training


@each_family_and_mode
def test_training_computes_like_the_int8_copy(
    folders: Mapping[str, Path], tmp_path: Path, family: str, mode: Any
) -> None:
    origin = TransformerClassifier.load(folders[family], "cpu")
    network = prepared(copy.deepcopy(origin.model), mode)
    assert network.state_dict().keys() == origin.model.state_dict().keys()
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name, module in network.named_modules():
        if hasattr(module, "weight_fake_quantizer"):
            module.register_forward_hook(
                lambda _, inputs, output, name=name: seen.update({name: (inputs[0], output)})
            )
    rounded = logits_of(origin, network)
    quantize_(network, QATConfig(step="convert"), lambda *_: True)
    variant = quantized(origin, network, mode, "qat", tmp_path)

    assert len(seen) == sum("_qdata" in name for name in stored(variant))
    for name, (x, expected) in seen.items():
        actual = variant.model.get_submodule(name)(x)
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
    # Across layers, rounding errors of fp32 decide numbers half-way between integers.
    rounding = np.abs(rounded - origin.logits(TEXTS)).mean()
    difference = np.abs(variant.logits(TEXTS) - rounded).mean()
    assert difference < (0.7 if mode == "dynamic" else 1e-3) * rounding


@pytest.mark.parametrize("trained", [0.4, 0.5])
def test_the_trained_copy_is_stored_like_int8_unless_rounding_alone_is_better(
    bert: TransformerClassifier, int8: TransformerClassifier, dataset: Dataset, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, trained: float,
) -> None:  # fmt: skip
    scores = iter([trained, 0.5])  # of the trained copy, and of rounding alone
    monkeypatch.setattr(Origin, "macro_f1", lambda *_: next(scores))
    variant = made(bert, dataset, tmp_path, "qat", **RETRAINING)
    assert (variant.name, variant.dtype) == ("bert (qat)", "int8")
    assert (variant.folder / MODEL).stat().st_size == (int8.folder / MODEL).stat().st_size
    actual, expected = stored(variant), stored(int8)
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in actual.items()} == {
        name: (tensor.dtype, tensor.shape) for name, tensor in expected.items()
    }
    changed = {name for name in actual if not torch.equal(actual[name], expected[name])}
    if trained < 0.5:
        assert not changed
    else:
        assert changed >= {
            "bert.embeddings.word_embeddings._weight_qdata",
            "bert.encoder.layer.0.attention.self.query._weight_qdata",
            "classifier.weight",
        }


def test_weight_only_training_can_be_resumed(
    bert: TransformerClassifier, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Origin, "macro_f1", lambda *_: 0.5)
    flags = {**RETRAINING, "int8_mode": "weight-only"}
    whole = made(bert, dataset, tmp_path / "whole", "qat", **flags)
    training_step, steps = SafeTrainer.training_step, []

    def interrupted_in_the_second_epoch(*args: Any, **kwargs: Any) -> Any:
        steps.append(1)
        if len(steps) == 4:  # two per epoch: 36 texts in batches of 32
            raise KeyboardInterrupt
        return training_step(*args, **kwargs)

    monkeypatch.setattr(SafeTrainer, "training_step", interrupted_in_the_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        made(bert, dataset, tmp_path / "resumed", "qat", **flags)
    assert list((tmp_path / "resumed" / CHECKPOINTS).glob("checkpoint-*"))
    actual = stored(made(bert, dataset, tmp_path / "resumed", "qat", **flags))
    assert len(steps) == 6
    expected = stored(whole)
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], expected[name]) for name in expected)
