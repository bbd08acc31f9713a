import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoModelForSequenceClassification

from compress.magnitude import smallest_masks
from compress.transformer.pruning import matrices
from featherweight.data.dataset import Dataset
from featherweight.errors import WeightsError
from featherweight.run import MODEL, Run
from featherweight.sparse import is_sparse, make_sparse, read_sparse
from tests.helpers.variants import made
from transformer_eval.classifier import TransformerClassifier, load_model

TEXTS = ["so happy 😂", "", "zzz", "i miss my dog, i feel so alone", "why, why, why???"]
each_family = pytest.mark.parametrize("family", ["bert", "distilbert", "electra", "albert"])


def pruned(
    classifier: TransformerClassifier, dataset: Dataset, workspace: Path, method: Any = "prune",
    **flags: Any,
) -> TransformerClassifier:  # fmt: skip
    variant = made(classifier, dataset, workspace, method, **{"retraining_epochs": 0, **flags})
    assert isinstance(variant, TransformerClassifier)
    return variant


def zeros(tensors: Mapping[str, Tensor]) -> int:
    return sum(int((tensor == 0).sum()) for tensor in tensors.values())


def numbers(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


# Selection of weights


@each_family
def test_word_embeddings_and_linear_layers_below_the_head_are_pruned(
    folders: Mapping[str, Path], family: str
) -> None:
    network = TransformerClassifier.load(folders[family], "cpu").model
    pruned_ones = matrices(network)
    assert not any("classifier" in name for name in pruned_ones)
    rest = {
        name for name, value in network.named_parameters() if value.dim() == 2
    } - pruned_ones.keys()
    tables = {"position_embeddings", "token_type_embeddings"}
    assert all("classifier" in name or name.split(".")[-2] in tables for name in rest)
    assert any("word_embeddings" in name for name in pruned_ones)


@pytest.mark.parametrize(("sparsity", "scope"), [(0.3, "global"), (0.77, "layer")])
def test_exactly_the_share_of_the_smallest_weights_is_zero(
    bert: TransformerClassifier, dataset: Dataset, tmp_path: Path, sparsity: float, scope: str
) -> None:
    variant = pruned(bert, dataset, tmp_path, sparsity=sparsity, scope=scope)
    before, after = matrices(bert.model), matrices(variant.model)
    masks = smallest_masks(before, sparsity, scope == "layer")
    for name, mask in masks.items():
        assert torch.equal(after[name], before[name] * mask)
        if scope == "layer":
            assert int((after[name] == 0).sum()) == round(sparsity * mask.numel())
    if scope == "global":
        assert zeros(after) == round(sparsity * numbers(before))
    for name, parameter in bert.model.named_parameters():
        if name not in masks:
            assert torch.equal(variant.model.get_parameter(name), parameter)
    assert variant.name == "bert (prune)"


def test_retraining_keeps_the_zeros_and_changes_the_rest(
    bert: TransformerClassifier, dataset: Dataset, tmp_path: Path
) -> None:
    masks = smallest_masks(matrices(bert.model), 0.6, by_layer=True)
    variant = pruned(bert, dataset, tmp_path, sparsity=0.6, scope="layer", retraining_epochs=2,
                     retraining_rate=1e-3)  # fmt: skip
    before, after = matrices(bert.model), matrices(variant.model)
    assert zeros(after) == sum(int((~mask).sum()) for mask in masks.values())
    for name, mask in masks.items():
        assert not after[name][~mask].any()
        assert not torch.equal(after[name][mask], before[name][mask])
    assert not torch.equal(variant.model.classifier.weight, bert.model.classifier.weight)


def test_the_origin_does_not_change(
    bert: TransformerClassifier, dataset: Dataset, tmp_path: Path
) -> None:
    before = bert.logits(TEXTS)
    variant = pruned(bert, dataset, tmp_path, vocabulary=0.6)
    assert np.array_equal(bert.logits(TEXTS), before)
    assert not np.array_equal(variant.logits(TEXTS), before)


# Files


@each_family
def test_a_loaded_copy_gives_the_same_logits(
    folders: Mapping[str, Path], dataset: Dataset, tmp_path: Path, family: str
) -> None:
    classifier = TransformerClassifier.load(folders[family], "cpu")
    variant = pruned(classifier, dataset, tmp_path, sparsity=0.6)
    run = Run(tmp_path / "run")
    variant.save_in(run)
    assert run.weights
    assert is_sparse(run.weights)
    loaded = TransformerClassifier.load(run.weights.parent, "cpu")
    assert np.array_equal(loaded.logits(TEXTS), variant.logits(TEXTS))
    assert loaded.labels == classifier.labels
    # A plain network with these weights computes the same.
    classifier.model.load_state_dict(variant.model.state_dict())
    assert np.array_equal(classifier.logits(TEXTS), variant.logits(TEXTS))


def test_the_file_shrinks_with_sparsity_and_vocabulary(
    bert: TransformerClassifier, dataset: Dataset, tmp_path: Path
) -> None:
    variants = [
        pruned(bert, dataset, tmp_path / str(sparsity), sparsity=sparsity, vocabulary=vocabulary)
        for sparsity, vocabulary in ((0.0, 1.0), (0.6, 1.0), (0.61, 0.5))
    ]
    sizes = [variant.size_bytes() for variant in variants]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[1] < bert.size_bytes()
    # Sparsity 0 changes nothing.
    assert np.array_equal(variants[0].logits(TEXTS), bert.logits(TEXTS))


def test_int8_keeps_the_zeros_and_the_exact_head(
    bert: TransformerClassifier, dataset: Dataset, tmp_path: Path
) -> None:
    masks = smallest_masks(matrices(bert.model), 0.6, by_layer=False)
    variant = pruned(bert, dataset, tmp_path, "prune+int8", sparsity=0.6)
    for name, mask in masks.items():
        weight = variant.model.get_parameter(name)
        plain = weight.dequantize() if hasattr(weight, "dequantize") else weight
        assert not plain[~mask].any()
        assert plain[mask].any()
    assert torch.equal(variant.model.classifier.weight, bert.model.classifier.weight)
    assert variant.name == "bert (prune+int8)"
    assert variant.size_bytes() < bert.size_bytes()
    assert np.isfinite(variant.logits(TEXTS)).all()


@pytest.fixture(scope="module")
def sparse(
    folders: Mapping[str, Path], dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The files of a pruned BERT."""
    bert = TransformerClassifier.load(folders["bert"], "cpu")
    return pruned(bert, dataset, tmp_path_factory.mktemp("pruned"), sparsity=0.6).folder


@pytest.fixture
def folder(sparse: Path, tmp_path: Path) -> Path:
    """A copy of them to change."""
    return Path(shutil.copytree(sparse, tmp_path / "copy"))


def refusal(folder: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        TransformerClassifier.load(folder, "cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_weights_are_refused(folder: Path, share: float) -> None:
    content = (folder / MODEL).read_bytes()
    (folder / MODEL).write_bytes(content[: int(share * len(content))])
    assert "truncated" in refusal(folder)


def test_weights_of_other_sizes_than_the_config_says_are_refused(
    folder: Path, folders: Mapping[str, Path]
) -> None:
    config = (folders["bert"] / "config.json").read_text(encoding="utf-8")
    (folder / "config.json").write_text(config.replace('_size": 48', '_size": 40'))
    assert "other sizes" in refusal(folder)


def test_weights_without_a_head_are_refused(folder: Path) -> None:
    state = read_sparse(folder / MODEL)
    state = {name: value for name, value in state.items() if "classifier" not in name}
    save_file(state, folder / MODEL)
    make_sparse(folder / MODEL)
    assert "no trained classification head" in refusal(folder)


def test_sparse_weights_can_get_another_head(folder: Path) -> None:
    state = read_sparse(folder / MODEL)
    names = {0: "good", 1: "bad"}
    model = load_model(
        AutoModelForSequenceClassification, folder, num_labels=2, id2label=names,
        label2id={"good": 0, "bad": 1}, ignore_mismatched_sizes=True,
    )  # fmt: skip
    assert model.config.id2label == names
    assert model.classifier.weight.shape == (2, 32)
    weight = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(model.get_parameter(weight), state[weight])


def test_sparse_weights_can_embed(folder: Path, tmp_path: Path) -> None:
    model = load_model(AutoModel, folder)
    whole = shutil.copytree(folder, tmp_path / "whole")
    save_file(read_sparse(folder / MODEL), whole / MODEL)
    expected = load_model(AutoModel, whole).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert load_file(folder / MODEL).keys() != load_file(whole / MODEL).keys()
