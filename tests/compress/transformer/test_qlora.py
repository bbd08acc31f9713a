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

from compress.config import CompressConfig
from compress.transformer import qlora
from compress.transformer.qlora import adaptable, train_adapters
from compress.transformer.retraining import retrain
from featherweight.data.dataset import Dataset
from featherweight.errors import MissingExtraError, UsageError, WeightsError
from featherweight.run import MODEL, TRANSFORMER, Run
from transformer_eval.classifier import TransformerClassifier
from transformer_eval.lora import WEIGHTS, pack_where_it_fits

TEXTS = ["so happy 😂", "", "zzz", "i miss my dog, i feel so alone", "why, why, why???"]
# Weights 25 times wider than usual, or all texts would get nearly equal logits.
TINY = {"vocab_size": 600, "initializer_range": 0.5}
BERT = {
    **TINY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 48,
}  # fmt: skip
FAMILIES: Mapping[str, dict[str, Any]] = {
    "bert": BERT,
    # Two layers in its head, one of which is not called by the name that peft expects.
    "distilbert": {**TINY, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48},
    # Its attention does not take to bf16 in one half of it.
    "deberta-v2": {
        **BERT, "pooler_hidden_size": 32, "type_vocab_size": 0, "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"], "position_buckets": 256, "norm_rel_ebd": "layer_norm",
        "share_att_key": True, "position_biased_input": False,
    },
    "albert": {**BERT, "embedding_size": 16},
}  # fmt: skip
HEADS = {
    "bert": ("classifier",), "distilbert": ("pre_classifier", "classifier"),
    "deberta-v2": ("pooler", "classifier"), "albert": ("classifier",),
}  # fmt: skip

each_family = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture
def in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes layers of 4 bits compute in fp32, whatever the machine is fast in."""
    monkeypatch.setattr(qlora, "precision", lambda *_: "fp32")


def trained(
    classifier: TransformerClassifier, dataset: Dataset, workspace: Path, **flags: Any
) -> TransformerClassifier:
    workspace.mkdir(exist_ok=True)
    flags = {"rank": 4, "lora_alpha": 8.0, "retraining_epochs": 1, **flags}
    config = CompressConfig(method="qlora", device="cpu", **flags)
    return train_adapters(classifier, Run(workspace), config, dataset, workspace)


@pytest.fixture(scope="module")
def variant(
    folders: Mapping[str, Path], dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> TransformerClassifier:
    """A BERT with adapters, for reading only."""
    bert = TransformerClassifier.load(folders["bert"], "cpu")
    return trained(bert, dataset, tmp_path_factory.mktemp("qlora") / "it")


def damaged(variant: TransformerClassifier, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(variant.folder, tmp_path / "damaged"))


@each_family
def test_the_base_is_in_four_bits_and_head_and_adapters_learn(
    folders: Mapping[str, Path], dataset: Dataset, tmp_path: Path, family: str
) -> None:
    classifier = TransformerClassifier.load(folders[family], "cpu")
    it = trained(classifier, dataset, tmp_path / "it")
    before = load_file(folders[family] / MODEL)
    base = load_file(it.folder / MODEL)
    layers = adaptable(classifier.model, [])
    assert {name for name in base if name.endswith(".quant_state.bitsandbytes__nf4")} == {
        f"{name}.weight.quant_state.bitsandbytes__nf4" for name in layers
    }
    for name in layers:  # two numbers share a byte
        assert base[f"{name}.weight"].numel() * 2 == before[f"{name}.weight"].numel()
    head = [name for name in before if name.startswith(HEADS[family])]
    assert all(torch.equal(base[name], before[name]) for name in head)
    adapter = load_file(it.folder / "adapter" / WEIGHTS)
    learned = {f"base_model.model.{name}" for name in head}
    assert adapter.keys() == learned | {
        f"base_model.model.{name}.lora_{half}.weight" for name in layers for half in "AB"
    }
    assert any(not torch.equal(adapter[f"base_model.model.{name}"], before[name]) for name in head)
    assert any(tensor.any() for name, tensor in adapter.items() if ".lora_B." in name)
    assert it.dtype == "nf4"
    assert np.isfinite(it.logits(TEXTS)).all()


def test_files_give_back_base_and_adapters_together(
    variant: TransformerClassifier, tmp_path: Path
) -> None:
    variant.save_in(Run(tmp_path))
    loaded = TransformerClassifier.load(tmp_path / TRANSFORMER, "cpu")
    assert np.array_equal(loaded.logits(TEXTS), variant.logits(TEXTS))
    assert (loaded.dtype, variant.name) == ("nf4", "bert (qlora)")
    assert not any(it.requires_grad for it in loaded.model.parameters())
    stored = load_file(loaded.folder / "adapter" / WEIGHTS)
    learned = {
        f"base_model.model.{name.replace('.default', '')}": it
        for name, it in loaded.model.named_parameters()
        if ".default" in name or name.startswith("classifier.")
    }
    assert learned.keys() == stored.keys()
    # As they are stored, whatever the base computes in.
    assert all(torch.equal(it, stored[name]) for name, it in learned.items())


def test_loading_draws_no_random_numbers(variant: TransformerClassifier) -> None:
    state = torch.get_rng_state()
    TransformerClassifier.load(variant.folder, "cpu")
    assert torch.equal(torch.get_rng_state(), state)


def test_bytes_and_parameters_count_base_and_adapters_and_one_head(
    variant: TransformerClassifier, bert: TransformerClassifier
) -> None:
    files = [path for path in variant.folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    assert variant.size_bytes() == sum(path.stat().st_size for path in files)
    stored = load_file(variant.folder / "adapter" / WEIGHTS)
    added = sum(it.numel() for name, it in stored.items() if ".lora_" in name)
    assert variant.num_parameters() == bert.num_parameters() + added


def test_no_path_of_this_machine_is_written(variant: TransformerClassifier) -> None:
    text = (variant.folder / "adapter" / "adapter_config.json").read_text()
    assert str(variant.folder.parent) not in text
    assert json.loads(text)["base_model_name_or_path"] is None


@pytest.mark.usefixtures("in_fp32")
def test_merged_answers_as_adapters_kept_apart(
    bert: TransformerClassifier, dataset: Dataset, tmp_path: Path
) -> None:
    flags = {"retraining_epochs": 2, "retraining_rate": 5e-3}
    apart = trained(bert, dataset, tmp_path / "apart", **flags)
    merged = trained(bert, dataset, tmp_path / "merged", **flags, merge=True)
    assert merged.logits(TEXTS) == pytest.approx(apart.logits(TEXTS), abs=0.05)
    assert not np.allclose(apart.logits(TEXTS), bert.logits(TEXTS), atol=0.5)
    tensors = load_file(merged.folder / MODEL)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert tensors.keys() == load_file(bert.folder / MODEL).keys()
    assert merged.stored_dtype == "fp16"
    assert "quantization_config" not in json.loads((merged.folder / "config.json").read_text())
    assert not (merged.folder / "adapter").exists()
    assert merged.num_parameters() == bert.num_parameters()


def test_named_layers_alone_get_adapters(
    bert: TransformerClassifier, dataset: Dataset, tmp_path: Path
) -> None:
    it = trained(bert, dataset, tmp_path / "it", target_modules=["query", "self.value"])
    names = load_file(it.folder / "adapter" / WEIGHTS)
    assert {name.split(".")[-3] for name in names if ".lora_" in name} == {"query", "value"}


@pytest.mark.parametrize("wanted", ["qkv", "classifier", "uery", "embeddings"])
def test_layers_that_are_not_there_are_refused(
    bert: TransformerClassifier, dataset: Dataset, tmp_path: Path, wanted: str
) -> None:
    with pytest.raises(UsageError, match="dense, key, query, value") as caught:
        trained(bert, dataset, tmp_path / "it", target_modules=["query", wanted])
    assert f"--target_modules: there is no layer {wanted}," in str(caught.value)
    assert not list((tmp_path / "it").iterdir())


class _Cut(TrainerCallback):
    """Ends a training as Ctrl-C does, at the start of its second epoch."""

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.epoch:
            raise KeyboardInterrupt


def test_a_training_that_was_cut_off_ends_as_if_it_had_not_been(
    bert: TransformerClassifier, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = {"retraining_epochs": 2, "retraining_rate": 5e-3}
    whole = trained(bert, dataset, tmp_path / "whole", **flags)
    with monkeypatch.context() as patched:
        patched.setattr(qlora, "retrain", lambda *a, **b: retrain(*a, **b, callbacks=[_Cut()]))
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
    one, other = (load_file(it.folder / "adapter" / WEIGHTS) for it in (whole, resumed))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert np.array_equal(whole.logits(TEXTS), resumed.logits(TEXTS))


def test_gradients_pass_after_an_evaluation(bert: TransformerClassifier, tmp_path: Path) -> None:
    layer = Linear4bit(64, 32, compute_dtype=torch.float32, quant_type="nf4").to("cpu")
    layer.support_avx512bf16_for_cpu = True  # whatever this machine has
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
    save_file({name: it.flatten() for name, it in tensors.items()}, adapter / WEIGHTS)


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
    "spoil",
    [_truncate, _drop_a_tensor, _reshape, _other_layers, _other_rank, _no_rank, _no_json, _a_list,
     _no_config],
)  # fmt: skip
def test_damaged_adapters_are_refused(
    variant: TransformerClassifier, tmp_path: Path, spoil: Any
) -> None:
    folder = damaged(variant, tmp_path)
    spoil(folder / "adapter")
    with pytest.raises(WeightsError, match="adapter") as caught:
        TransformerClassifier.load(folder, "cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("library", ["bitsandbytes", "peft"])
def test_without_a_library_it_is_named(
    bert: TransformerClassifier, variant: TransformerClassifier, dataset: Dataset, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, library: str,
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, library, None)
    message = rf"^{library} is not installed; get it with: .*'featherweight\[transformers\]'"
    with pytest.raises(MissingExtraError, match=message):
        trained(bert, dataset, tmp_path / "it")
    with pytest.raises(MissingExtraError, match=message):
        TransformerClassifier.load(variant.folder, "cpu")


def test_the_libraries_say_nothing_on_stdout_and_nothing_of_their_own(
    bert: TransformerClassifier, dataset: Dataset, tmp_path: Path,
    capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder,
) -> None:  # fmt: skip
    trained(bert, dataset, tmp_path / "it", merge=True).logits(TEXTS)
    assert capfd.readouterr().out == ""
    assert not [str(it.message) for it in recwarn]
