import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress.lstm.pruning import HEAD, matrices, without_rare_words
from compress.magnitude import smallest_masks
from featherweight import load
from featherweight.data.dataset import Dataset
from featherweight.errors import UsageError
from lstm.classifier import TextClassifier
from lstm.config import ModelConfig, TokenizerConfig
from lstm.encoder import LSTMClassifier
from lstm.tokenizer import PAD, UNK, UNK_ID, token_ids, train_tokenizer
from tests.helpers.variants import made

TEXTS = ["so happy 😂", "", "zzz", "i miss my dog, i feel so alone", "why, why, why???"]
sparsities = pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.95])
scopes = pytest.mark.parametrize("scope", ["global", "layer"])


def pruned(
    classifier: TextClassifier, dataset: Dataset, workspace: Path, method: Any = "prune",
    **flags: Any,
) -> TextClassifier:  # fmt: skip
    variant = made(classifier, dataset, workspace, method, **{"retraining_epochs": 0, **flags})
    assert isinstance(variant, TextClassifier)
    return variant


def random_classifier(
    origin: TextClassifier, dataset: Dataset, tokenizer: Any = "word", **changes: Any
) -> TextClassifier:
    config = replace(ModelConfig(embedding_dim=6, hidden_dim=5), **changes)
    learned = train_tokenizer(dataset.train.texts, TokenizerConfig(tokenizer=tokenizer))
    module = LSTMClassifier(learned.get_vocab_size(), 3, config)
    return TextClassifier("random", origin.labels, learned, module, config, "cpu")


def zeros(tensors: dict[str, torch.Tensor]) -> int:
    return sum(int((tensor == 0).sum()) for tensor in tensors.values())


def saved_and_loaded(classifier: TextClassifier, folder: Path) -> TextClassifier:
    classifier.save(folder / "variant.safetensors")
    loaded = load(folder / "variant.safetensors", "cpu")
    assert isinstance(loaded, TextClassifier)
    return loaded


# Selection of weights


@sparsities
def test_exactly_the_share_of_all_weights_is_pruned(
    origin: TextClassifier, sparsity: float
) -> None:
    masks = smallest_masks(matrices(origin.module), sparsity, by_layer=False)
    numbers = sum(mask.numel() for mask in masks.values())
    pruned = sum(int((~mask).sum()) for mask in masks.values())
    assert pruned == round(sparsity * numbers)
    magnitudes = {name: tensor.abs() for name, tensor in matrices(origin.module).items()}
    assert masks.keys() == magnitudes.keys()
    kept = torch.cat([magnitudes[name][mask] for name, mask in masks.items()])
    lost = torch.cat([magnitudes[name][~mask] for name, mask in masks.items()])
    assert not pruned or lost.max() <= kept.min()


@sparsities
def test_by_layer_exactly_the_share_of_each_matrix_is_pruned(
    origin: TextClassifier, sparsity: float
) -> None:
    masks = smallest_masks(matrices(origin.module), sparsity, by_layer=True)
    for name, tensor in matrices(origin.module).items():
        assert int((~masks[name]).sum()) == round(sparsity * tensor.numel())
        lost, kept = tensor[~masks[name]].abs(), tensor[masks[name]].abs()
        assert not len(lost) or not len(kept) or lost.max() <= kept.min()


def test_the_two_scopes_choose_differently(origin: TextClassifier) -> None:
    together = smallest_masks(matrices(origin.module), 0.5, by_layer=False)
    apart = smallest_masks(matrices(origin.module), 0.5, by_layer=True)
    assert any(not torch.equal(together[name], apart[name]) for name in apart)
    shares = [mask.float().mean().item() for mask in together.values()]
    assert max(shares) - min(shares) > 0.02


def test_exactly_the_share_is_pruned_if_all_weights_are_equal(origin: TextClassifier) -> None:
    with torch.no_grad():
        for parameter in origin.module.parameters():
            parameter.fill_(0.5)
    for by_layer in (False, True):
        masks = smallest_masks(matrices(origin.module), 0.5, by_layer)
        numbers = sum(mask.numel() for mask in masks.values())
        assert sum(int(mask.sum()) for mask in masks.values()) == pytest.approx(numbers / 2, abs=1)


# The variant


@scopes
def test_without_retraining_the_remaining_weights_do_not_change(
    origin: TextClassifier, dataset: Dataset, tmp_path: Path, scope: str
) -> None:
    before = origin.logits(TEXTS)
    masks = smallest_masks(matrices(origin.module), 0.4, scope == "layer")
    variant = pruned(origin, dataset, tmp_path, sparsity=0.4, scope=scope)
    after = variant.module.state_dict()
    for name, tensor in origin.module.state_dict().items():
        kept = masks.get(name, torch.ones_like(tensor, dtype=torch.bool))
        assert torch.equal(after[name], tensor * kept)
    assert torch.equal(after[HEAD], origin.module.head.weight)
    numbers = sum(mask.numel() for mask in masks.values())
    assert zeros(matrices(variant.module)) == pytest.approx(round(0.4 * numbers), abs=len(masks))
    assert variant.name == "tiny (prune)"
    assert np.array_equal(origin.logits(TEXTS), before)
    assert not np.array_equal(variant.logits(TEXTS), before)


@pytest.mark.parametrize(("method", "scope"), [("prune", "global"), ("prune+int8", "layer")])
def test_retraining_keeps_the_zeros_and_changes_the_rest(
    origin: TextClassifier, dataset: Dataset, tmp_path: Path, method: str, scope: str
) -> None:
    masks = smallest_masks(matrices(origin.module), 0.4, scope == "layer")
    variant = pruned(origin, dataset, tmp_path, method, sparsity=0.4, scope=scope,
                     retraining_epochs=2, retraining_rate=0.02)  # fmt: skip
    before, after = origin.module.state_dict(), variant.module.state_dict()
    for name, mask in masks.items():
        assert not after[name][~mask].any()
        moved = after[name][mask] != before[name][mask]
        assert moved.any()
    assert not torch.equal(after[HEAD], before[HEAD])
    if method == "prune":
        assert zeros(matrices(variant.module)) == sum(int((~mask).sum()) for mask in masks.values())


def test_sparsity_0_changes_nothing(
    origin: TextClassifier, dataset: Dataset, tmp_path: Path
) -> None:
    variant = pruned(origin, dataset, tmp_path, sparsity=0.0)
    assert np.array_equal(variant.logits(TEXTS), origin.logits(TEXTS))


def test_a_pruned_zero_stays_zero_in_int8_and_the_head_stays_whole(
    origin: TextClassifier, dataset: Dataset, tmp_path: Path
) -> None:
    masks = smallest_masks(matrices(origin.module), 0.6, by_layer=False)
    variant = pruned(origin, dataset, tmp_path, "prune+int8", sparsity=0.6)
    loaded = saved_and_loaded(variant, tmp_path)
    state = loaded.module.state_dict()
    for name, mask in masks.items():
        assert not state[name][~mask].any()
        assert state[name][mask].any()
        assert loaded.storage[name] == "int8"
    assert loaded.storage[HEAD] == "fp32"
    assert torch.equal(state[HEAD], origin.module.head.weight)
    assert {kind for name, kind in loaded.storage.items() if "bias" in name} == {"fp16"}
    assert variant.name == "tiny (prune+int8)"


@sparsities
def test_sparse_is_used_only_where_it_is_smaller(
    origin: TextClassifier, dataset: Dataset, tmp_path: Path, sparsity: float
) -> None:
    variant = pruned(origin, dataset, tmp_path, sparsity=sparsity)
    state = variant.module.state_dict()
    assert variant.storage.keys() == state.keys()
    for name, tensor in state.items():
        sparse = math.ceil(tensor.numel() / 8) + 4 * int(tensor.count_nonzero())
        assert variant.storage[name] == ("sparse" if sparse < 4 * tensor.numel() else "fp32")
    if sparsity > 0.1:
        assert "sparse" in variant.storage.values()
        assert variant.storage[HEAD] == "fp32"


def test_the_file_shrinks_with_sparsity(
    origin: TextClassifier, dataset: Dataset, tmp_path: Path
) -> None:
    sizes = [
        pruned(origin, dataset, tmp_path, sparsity=sparsity).size_bytes()
        for sparsity in (0.3, 0.6, 0.9)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] < origin.size_bytes()
    integers = pruned(origin, dataset, tmp_path, "prune+int8", sparsity=0.6)
    assert integers.size_bytes() < sizes[1]


@pytest.mark.parametrize(
    ("method", "sparsity"), [("prune", 0.0), ("prune", 0.99), ("prune+int8", 0.99)]
)
def test_a_loaded_copy_gives_the_same_logits(
    origin: TextClassifier, dataset: Dataset, tmp_path: Path, method: str, sparsity: float
) -> None:
    # By layer, 0.99 prunes all ten attention weights.
    classifier = random_classifier(origin, dataset, pooling="attention", num_layers=2)
    variant = pruned(classifier, dataset, tmp_path, method, sparsity=sparsity, scope="layer")
    loaded = saved_and_loaded(variant, tmp_path)
    assert np.array_equal(loaded.logits(TEXTS), variant.logits(TEXTS))
    assert loaded.storage == variant.storage
    if sparsity == 0.99:
        assert not loaded.module.state_dict()["attention.weight"].any()


# The vocabulary


def counts(classifier: TextClassifier, dataset: Dataset) -> dict[str, int]:
    ids = [index for text in token_ids(classifier.tokenizer, dataset.train.texts)[0]
           for index in text]  # fmt: skip
    vocabulary = classifier.tokenizer.get_vocab()
    return {word: ids.count(index) for word, index in vocabulary.items()}


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_most_frequent_words_are_kept_with_dense_ids(
    origin: TextClassifier, dataset: Dataset, share: float
) -> None:
    known = origin.tokenizer.get_vocab()
    smaller = without_rare_words(origin, dataset, share)
    kept = smaller.tokenizer.get_vocab()
    assert (kept[PAD], kept[UNK]) == (0, 1)
    assert sorted(kept.values()) == list(range(len(kept)))
    assert len(kept) == 2 + round(share * (len(known) - 2))
    assert kept.keys() <= known.keys()
    occurrences = counts(origin, dataset)
    fewest = min(occurrences[word] for word in kept.keys() - {PAD, UNK})
    assert max(occurrences[word] for word in known.keys() - kept.keys()) <= fewest
    for word, index in kept.items():
        assert torch.equal(
            smaller.module.embedding.weight[index], origin.module.embedding.weight[known[word]]
        )
    assert smaller.num_parameters() == origin.num_parameters() - 8 * (len(known) - len(kept))


def test_logits_change_only_for_texts_with_removed_words(
    origin: TextClassifier, dataset: Dataset, tmp_path: Path
) -> None:
    variant = pruned(origin, dataset, tmp_path, sparsity=0.0, vocabulary=0.5)
    words = variant.tokenizer.get_vocab().keys() - {PAD, UNK}
    letters = sorted(word for word in words if word.isalpha())
    kept = [" ".join(letters[start::7]) for start in range(7)] + ["", "zzz"]
    assert np.array_equal(variant.logits(kept), origin.logits(kept))
    (removed,) = sorted(origin.tokenizer.get_vocab().keys() - words - {PAD, UNK})[-1:]
    assert variant.encode([removed]).input_ids.tolist() == [[UNK_ID]]
    assert np.array_equal(variant.logits([f"so {removed} i"]), origin.logits(["so zzz i"]))
    assert not np.array_equal(variant.logits([removed]), origin.logits([removed]))


def test_a_smaller_vocabulary_survives_saving(
    origin: TextClassifier, dataset: Dataset, tmp_path: Path
) -> None:
    variant = pruned(origin, dataset, tmp_path, "prune+int8", vocabulary=0.3, sparsity=0.5,
                     retraining_epochs=1)  # fmt: skip
    loaded = saved_and_loaded(variant, tmp_path)
    assert loaded.tokenizer.get_vocab() == variant.tokenizer.get_vocab()
    assert np.array_equal(loaded.logits(TEXTS), variant.logits(TEXTS))
    whole = pruned(origin, dataset, tmp_path / "no", "prune+int8", sparsity=0.5)
    assert loaded.size_bytes() < whole.size_bytes()


def test_at_least_one_word_is_kept(origin: TextClassifier, dataset: Dataset) -> None:
    smaller = without_rare_words(origin, dataset, 1e-9)
    assert len(smaller.tokenizer.get_vocab()) == 3
    assert np.isfinite(smaller.logits(TEXTS)).all()


def test_the_origin_keeps_its_vocabulary(origin: TextClassifier, dataset: Dataset) -> None:
    before, vocabulary = origin.logits(TEXTS), origin.tokenizer.get_vocab()
    without_rare_words(origin, dataset, 0.2)
    assert origin.tokenizer.get_vocab() == vocabulary
    assert np.array_equal(origin.logits(TEXTS), before)


def test_subwords_are_refused_in_one_line(
    origin: TextClassifier, dataset: Dataset, tmp_path: Path
) -> None:
    classifier = random_classifier(origin, dataset, tokenizer="bpe")
    assert json.loads(classifier.tokenizer.to_str())["model"]["type"] == "BPE"
    with pytest.raises(UsageError, match="--vocabulary") as caught:
        pruned(classifier, dataset, tmp_path, vocabulary=0.5)
    assert "random" in str(caught.value)
    assert "\n" not in str(caught.value)
    # Its weights can be pruned.
    variant = pruned(classifier, dataset, tmp_path)
    assert variant.tokenizer.get_vocab() == classifier.tokenizer.get_vocab()
