import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from featherweight.device import seed_everything
from featherweight.errors import CheckpointError
from lstm import fit as fit_module
from lstm.config import ModelConfig, OptimizationConfig
from lstm.encoder import EMBEDDING_STD, LSTMClassifier
from lstm.fit import EncodedSplit, fit
from lstm.tokenizer import PAD_ID, UNK_ID
from lstm.vectors.embedding import VectorEmbedding, trained_from

VOCAB_SIZE, COLUMNS = 20, 6
IDS = torch.tensor([[2, 3, 1, 15], [9, 19, 4, PAD_ID]])
LENGTHS = torch.tensor([4, 3])
CONFIG = OptimizationConfig(epochs=3, min_steps=4, batch_size=4, learning_rate=0.02, device="cpu")
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]


def vectors(seed: int = 3) -> Tensor:
    """Vectors of words 2 to 11; the rest of the vocabulary has none."""
    found = torch.zeros(VOCAB_SIZE, COLUMNS)
    found[2:12] = torch.randn(10, COLUMNS, generator=torch.Generator().manual_seed(seed))
    return found


def network(**changes: Any) -> LSTMClassifier:
    seed_everything(0)
    return LSTMClassifier(VOCAB_SIZE, 3, ModelConfig(embedding_dim=4, hidden_dim=5, **changes))


def split(seed: int) -> EncodedSplit:
    rng = np.random.default_rng(seed)
    labels = np.arange(12, dtype=np.int64) % 3
    return EncodedSplit(
        [[2 + int(label), *rng.integers(1, VOCAB_SIZE, 4)] for label in labels], labels
    )


def trained(path: Path, device: str = "cpu", found: Tensor | None = None) -> LSTMClassifier:
    module = network()
    with trained_from(module, vectors() if found is None else found):
        fit(module, split(1), split(2), CONFIG, device, path)
    return module


def equal(one: LSTMClassifier, other: LSTMClassifier) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][name], states[1][name]) for name in states[0]
    )


def test_known_words_start_as_projected_vectors_and_others_at_random() -> None:
    module, plain = network(), network()
    embedding = VectorEmbedding(module.embedding, vectors())
    expected = plain.embedding.weight.detach().clone()
    expected[2:12] = EMBEDDING_STD * vectors()[2:12, :4]
    assert torch.allclose(embedding.table(), expected)
    assert not embedding.table()[PAD_ID].any()
    assert torch.equal(embedding.table()[UNK_ID], plain.embedding.weight[UNK_ID])


def test_more_embedding_dimensions_than_columns_start_at_zero() -> None:
    embedding = VectorEmbedding(nn.Embedding(VOCAB_SIZE, 9, PAD_ID), vectors())
    assert not embedding.table()[2:12, COLUMNS:].any()
    assert embedding.table()[2:12, :COLUMNS].all()


def changed(embedding: VectorEmbedding) -> VectorEmbedding:
    """Gives an embedding other weights, as a training does."""
    with torch.no_grad():
        embedding.projection.add_(torch.randn_like(embedding.projection))
        embedding.weight[2:].add_(torch.randn_like(embedding.weight[2:]))
    return embedding


@pytest.mark.parametrize("training", [True, False])
def test_collapsed_network_has_the_logits_of_the_composed_one(training: bool) -> None:
    module = network(dropout=0.0, embedding_dropout=0.0, word_dropout=0.0).train(training)
    module.embedding = changed(VectorEmbedding(module.embedding, vectors()))
    collapsed = copy.deepcopy(module)
    collapsed.embedding = module.embedding.collapsed()
    assert type(collapsed.embedding) is nn.Embedding
    composed, single = module(IDS, LENGTHS), collapsed(IDS, LENGTHS)
    assert torch.allclose(composed, single, atol=1e-6)
    if not training:  # validation scores are those of the final network
        assert torch.equal(composed, single)


def test_vectors_stay_fixed_and_the_rest_learns(tmp_path: Path) -> None:
    module = network()
    module.embedding = embedding = VectorEmbedding(module.embedding, vectors())
    before = copy.deepcopy(embedding.state_dict())
    fit(module, split(1), split(2), CONFIG, "cpu", tmp_path / "checkpoint")
    assert torch.equal(embedding.vectors, vectors())
    assert not torch.equal(embedding.projection, before["projection"])
    assert (embedding.weight[2:5] != before["weight"][2:5]).all()
    assert not embedding.weight[PAD_ID].any()


@pytest.mark.parametrize("device", DEVICES)
def test_trained_network_has_a_plain_embedding(tmp_path: Path, device: str) -> None:
    module = trained(tmp_path / "checkpoint", device)
    assert type(module.embedding) is nn.Embedding
    assert module.embedding.padding_idx == PAD_ID
    assert not module.embedding.weight[PAD_ID].any()
    assert module.state_dict().keys() == network().state_dict().keys()


def test_without_vectors_nothing_changes(tmp_path: Path) -> None:
    module, plain = network(), network()
    with trained_from(module, None):
        assert type(module.embedding) is nn.Embedding
        fit(module, split(1), split(2), CONFIG, "cpu", tmp_path / "one")
    fit(plain, split(1), split(2), CONFIG, "cpu", tmp_path / "other")
    assert equal(module, plain)


def test_projection_has_no_weight_decay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decays: dict[int, float] = {}
    step = torch.optim.AdamW.step

    def recording_step(self: torch.optim.AdamW, *arguments: Any) -> Any:
        groups = self.param_groups
        decays.update((id(p), group["weight_decay"]) for group in groups for p in group["params"])
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", recording_step)
    module = network()
    module.embedding = embedding = VectorEmbedding(module.embedding, vectors())
    fit(module, split(1), split(2), CONFIG, "cpu", tmp_path / "checkpoint")
    assert decays.pop(id(embedding.projection)) == 0
    assert len(decays) == len(list(module.parameters())) - 1
    assert set(decays.values()) == {CONFIG.weight_decay}


@pytest.fixture
def cut_off(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Starts a training that ends after the checkpoint of its first epoch."""

    def start(path: Path) -> None:
        save = fit_module.save_checkpoint

        def save_and_stop(*arguments: Any) -> None:
            save(*arguments)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(fit_module, "save_checkpoint", save_and_stop)
            with pytest.raises(KeyboardInterrupt):
                trained(path)

    return start


@pytest.mark.parametrize("device", DEVICES)
def test_same_seed_gives_the_same_weights(tmp_path: Path, device: str) -> None:
    assert equal(trained(tmp_path / "one", device), trained(tmp_path / "other", device))


def test_resumed_training_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, cut_off: Callable[[Path], None]
) -> None:
    cut_off(tmp_path / "resumed")
    assert equal(trained(tmp_path / "resumed"), trained(tmp_path / "whole"))


def test_training_with_other_vectors_is_not_resumed(
    tmp_path: Path, cut_off: Callable[[Path], None]
) -> None:
    cut_off(tmp_path / "checkpoint")
    with pytest.raises(CheckpointError, match="word vectors have changed") as caught:
        trained(tmp_path / "checkpoint", found=vectors(seed=4))
    assert "\n" not in str(caught.value)


def test_checkpoint_does_not_contain_the_vectors(
    tmp_path: Path, cut_off: Callable[[Path], None]
) -> None:
    cut_off(tmp_path / "checkpoint")
    shapes = {tuple(t.shape) for t in load_tensors(tmp_path / "checkpoint").values()}
    assert (COLUMNS, 4) in shapes
    assert (VOCAB_SIZE, COLUMNS) not in shapes


def load_tensors(path: Path) -> dict[str, Tensor]:
    import safetensors.torch

    return safetensors.torch.load(path.read_bytes())
