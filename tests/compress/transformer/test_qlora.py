import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bitsandbytes.nn import Linear4bit
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from compress.transformer import qlora
from compress.transformer.qlora import adaptable
from compress.transformer.retraining import retrain
from featherweight.data.dataset import Dataset
from featherweight.errors import MissingExtraError, UsageError, WeightsError
from featherweight.run import MODEL, TRANSFORMER, Run
from tests.helpers.variants import made
from transformer_eval.classifier import TransformerClassifier
from transformer_eval.lora import WEIGHTS, pack_where_it_fits

TEXTS = ["so happy 😂", "", "zzz", "i miss my dog, i feel so alone", "why, why, why???"]
HEADS = {
    "bert": ("classifier",), "distilbert": ("pre_classifier", "classifier"),
    "deberta-v2": ("pooler", "classifier"), "albert": ("classifier",),
}  # fmt: skip

each_family = pytest.mark.parametrize("family", HEADS)


@pytest.fixture
def in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes 4-bit layers compute in fp32 on any processor."""
    monkeypatch.setattr(qlora, "precision", lambda *_: "fp32")


def trained(
    classifier: TransformerClassifier, dataset: Dataset, workspace: Path, **flags: Any
) -> TransformerClassifier:
    flags = {"rank": 4, "lora_alpha": 8.0, "retraining_epochs": 1, **flags}
    return made(classifier, dataset, workspace, "qlora", **flags)


@pytest.fixture(scope="module")
def variant(
    folders: Mapping[str, Path], dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> TransformerClassifier:
    """A BERT with adapters, for reading only."""
    bert = TransformerClassifier.load(folders["bert"], "cpu")
    return trained(bert, dataset, tmp_path_factory.mktemp("qlora") / "bert")


def damaged(variant: TransformerClassifier, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(variant.folder, tmp_path / "damaged"))


@each_family
def test_the_base_is_in_four_bits_and_head_and_adapters_are_trained(
    folders: Mapping[str, Path], dataset: Dataset, tmp_path: Path, family: str
) -> None:
    classifier = TransformerClassifier.load(folders[family], "cpu")
    variant = trained(classifier, dataset, tmp_path / "variant")
    before = load_file(folders[family] / MODEL)
    base = load_file(variant.folder / MODEL)
    layers = adaptable(classifier.model, [])
    assert {name for name in base if name.endswith(".quant_state.bitsandbytes__nf4")} == {
        f"{name}.weight.quant_state.bitsandbytes__nf4" for name in layers
    }
    for name in layers:  # two weights per byte
        assert base[f"{name}.weight"].numel() * 2 == before[f"{name}.weight"].numel()
    head = [name for name in before if name.startswith(HEADS[family])]
    assert all(torch.equal(base[name], before[name]) for name in head)
    adapter = load_file(variant.folder / "adapter" / WEIGHTS)
    learned = {f"base_model.model.{name}" for name in head}
    assert adapter.keys() == learned | {
        f"base_model.model.{name}.lora_{half}.weight" for name in layers for half in "AB"
    }
    assert any(not torch.equal(adapter[f"base_model.model.{name}"], before[name]) for name in head)
    assert any(tensor.any() for name, tensor in adapter.items() if ".lora_B." in name)
    assert variant.dtype == "nf4"
    assert np.isfinite(variant.logits(TEXTS)).all()


def test_base_and_adapters_are_saved_and_loaded(
    variant: TransformerClassifier, tmp_path: Path
) -> None:
    variant.save_in(Run(tmp_path))
    loaded = TransformerClassifier.load(tmp_path / TRANSFORMER, "cpu")
    assert np.array_equal(loaded.logits(TEXTS), variant.logits(TEXTS))
    assert (loaded.dtype, variant.name) == ("nf4", "bert (qlora)")
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    stored = load_file(loaded.folder / "adapter" / WEIGHTS)
    learned = {
        f"base_model.model.{name.replace('.default', '')}": value
        for name, value in loaded.model.named_parameters()
        if ".default" in name or name.startswith("classifier.")
    }
    assert learned.keys() == stored.keys()
    # They have the stored precision, whatever the base computes in.
    assert all(torch.equal(value, stored[name]) for name, value in learned.items())


def test_loading_draws_no_random_numbers(variant: TransformerClassifier) -> None:
    state = torch.get_rng_state()
    TransformerClassifier.load(variant.folder, "cpu")
    assert torch.equal(torch.get_rng_state(), state)


def test_size_and_parameters_count_base_adapters_and_one_head(
    variant: TransformerClassifier, bert: TransformerClassifier
) -> None:
    files = [path for path in variant.folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    assert variant.size_bytes() == sum(path.stat().st_size for path in files)
    stored = load_file(variant.folder / "adapter" / WEIGHTS)
    added = sum(value.numel() for name, value in stored.items() if ".lora_" in name)
    assert variant.num_parameters() == bert.num_parameters() + added


def test_no_local_path_is_written(variant: TransformerClassifier) -> None:
    text = (variant.folder / "adapter" / "adapter_config.json").read_text()
    assert str(variant.folder.parent) not in text
    assert json.loads(text)["base_model_name_or_path"] is None


@pytest.mark.usefixtures("in_fp32")
def test_merged_adapters_give_the_logits_of_separate_ones(
    bert: TransformerClassifier, dataset: Dataset, tmp_path: Path,
    capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder,
) -> None:  # fmt: skip
    flags = {"retraining_epochs": 2, "retraining_rate": 5e-3}
    separate = trained(bert, dataset, tmp_path / "separate", **flags)
    merged = trained(bert, dataset, tmp_path / "merged", **flags, merge=True)
    assert merged.logits(TEXTS) == pytest.approx(separate.logits(TEXTS), abs=0.05)
    assert not np.allclose(separate.logits(TEXTS), bert.logits(TEXTS), atol=0.5)
    # The libraries print nothing on stdout and warn of nothing.
    assert capfd.readouterr().out == ""
    assert not [str(warning.message) for warning in recwarn]
    tensors = load_file(merged.folder / MODEL)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert tensors.keys() == load_file(bert.folder / MODEL).keys()
    assert merged.stored_dtype == "fp16"
    assert "quantization_config" not in json.loads((merged.folder / "config.json").read_text())
    assert not (merged.folder / "adapter").exists()
    assert merged.num_parameters() == bert.num_parameters()


def test_only_named_layers_get_adapters(
    bert: TransformerClassifier, dataset: Dataset, tmp_path: Path
) -> None:
    variant = trained(bert, dataset, tmp_path / "variant", target_modules=["query", "self.value"])
    names = load_file(variant.folder / "adapter" / WEIGHTS)
    assert {name.split(".")[-3] for name in names if ".lora_" in name} == {"query", "value"}


@pytest.mark.parametrize("wanted", ["qkv", "classifier", "uery", "embeddings"])
def test_unknown_layers_are_refused(
    bert: TransformerClassifier, dataset: Dataset, tmp_path: Path, wanted: str
) -> None:
    with pytest.raises(UsageError, match="dense, key, query, value") as caught:
        trained(bert, dataset, tmp_path / "variant", target_modules=["query", wanted])
    assert f"--target_modules: there is no layer {wanted}:" in str(caught.value)
    assert not list((tmp_path / "variant").iterdir())


class _Interrupt(TrainerCallback):
    """Interrupts a training at the start of its second epoch, as Ctrl-C does."""

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.epoch:
            raise KeyboardInterrupt


def test_a_resumed_training_equals_an_uninterrupted_one(
    bert: TransformerClassifier, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = {"retraining_epochs": 2, "retraining_rate": 5e-3}
    whole = trained(bert, dataset, tmp_path / "whole", **flags)
    with monkeypatch.context() as patched:
        patched.setattr(
            qlora, "retrain", lambda *a, **b: retrain(*a, **b, callbacks=[_Interrupt()])
        )
        with pytest.raises(KeyboardInterrupt):
            trained(bert, dataset, tmp_path / "cut", **flags)
    (checkpoint,) = (tmp_path / "cut" / "checkpoints").iterdir()
    files = {path.name for path in checkpoint.iterdir()}
    assert WEIGHTS in files
    assert not {path for path in files if Path(path).suffix in (".bin", ".pt", ".pth", ".pkl")}
    seen = []

    class Epochs(TrainerCallback):
        def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            seen.append(state.epoch)

    monkeypatch.setattr(qlora, "retrain", lambda *a, **b: retrain(*a, **b, callbacks=[Epochs()]))
    resumed = trained(bert, dataset, tmp_path / "cut", **flags)
    assert seen == [1]
    one, other = (load_file(each.folder / "adapter" / WEIGHTS) for each in (whole, resumed))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert np.array_equal(whole.logits(TEXTS), resumed.logits(TEXTS))


def test_gradients_pass_after_an_evaluation(bert: TransformerClassifier, tmp_path: Path) -> None:
    layer = Linear4bit(64, 32, compute_dtype=torch.float32, quant_type="nf4").to("cpu")
    layer.support_avx512bf16_for_cpu = True  # on any processor
    pack_where_it_fits(layer, training=True)
    layer.eval()(torch.randn(2, 64))
    batch = torch.randn(2, 64, requires_grad=True)
    layer.train()(batch).sum().backward()
    assert batch.grad is not None
    assert batch.grad.any()


@pytest.mark.parametrize(
    ("rows", "columns", "fits"), [(32, 64, True), (48, 64, False), (32, 32, False)]
)
def test_only_layers_of_even_sizes_are_rearranged(rows: int, columns: int, fits: bool) -> None:
    layer = Linear4bit(columns, rows, quant_type="nf4").to("cpu")
    layer.support_avx512bf16_for_cpu = True
    pack_where_it_fits(layer)
    assert layer.support_avx512bf16_for_cpu == fits


def test_pickled_adapters_are_refused(variant: TransformerClassifier, tmp_path: Path) -> None:
    folder = damaged(variant, tmp_path)
    adapter = folder / "adapter"
    torch.save(load_file(adapter / WEIGHTS), adapter / "adapter_model.bin")
    (adapter / WEIGHTS).unlink()
    with pytest.raises(WeightsError, match=f"no {WEIGHTS}: adapters are loaded from safetensors"):
        TransformerClassifier.load(folder, "cpu")


def _truncate(adapter: Path) -> None:
    (adapter / WEIGHTS).write_bytes((adapter / WEIGHTS).read_bytes()[:-50])


def _drop_a_tensor(adapter: Path) -> None:
    tensors = load_file(adapter / WEIGHTS)
    del tensors[min(tensors)]
    save_file(tensors, adapter / WEIGHTS)


def _reshape(adapter: Path) -> None:
    tensors = load_file(adapter / WEIGHTS)
    save_file({name: value.flatten() for name, value in tensors.items()}, adapter / WEIGHTS)


def _other_layers(adapter: Path) -> None:
    _change(adapter, target_modules=["nothing"])


def _other_rank(adapter: Path) -> None:
    _change(adapter, r=3)


def _no_rank(adapter: Path) -> None:
    _change(adapter, r="many")


def _no_json(adapter: Path) -> None:
    (adapter / "adapter_config.json").write_text("{")


def _a_list(adapter: Path) -> None:
    (adapter / "adapter_config.json").write_text("[]")


def _no_config(adapter: Path) -> None:
    (adapter / "adapter_config.json").unlink()


def _change(adapter: Path, **facts: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


@pytest.mark.parametrize(
    "damage",
    [_truncate, _drop_a_tensor, _reshape, _other_layers, _other_rank, _no_rank, _no_json, _a_list,
     _no_config],
)  # fmt: skip
def test_damaged_adapters_are_refused(
    variant: TransformerClassifier, tmp_path: Path, damage: Any
) -> None:
    folder = damaged(variant, tmp_path)
    damage(folder / "adapter")
    with pytest.raises(WeightsError, match="adapter") as caught:
        TransformerClassifier.load(folder, "cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("library", ["bitsandbytes", "peft"])
def test_a_missing_library_is_named(
    bert: TransformerClassifier, variant: TransformerClassifier, dataset: Dataset, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, library: str,
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, library, None)
    message = rf"^{library} is not installed; get it with: .*'featherweight\[transformers\]'"
    with pytest.raises(MissingExtraError, match=message):
        trained(bert, dataset, tmp_path / "variant")
    with pytest.raises(MissingExtraError, match=message):
        TransformerClassifier.load(variant.folder, "cpu")
