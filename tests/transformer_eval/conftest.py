"""Tiny transformers with random weights, one of each family, as `save_pretrained` writes them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from featherweight.comparison import compare
from featherweight.data.dataset import DataConfig, load_dataset
from tests.helpers.fetching import Model
from tests.helpers.hub_server import PlayedHub, Repository, serve
from transformer_eval.random_weights import build
from transformer_eval.registry import Pretrained

# The data has them by the alphabet: nothing but their names can match them up. A cycle of three,
# as with two swapped a wrong direction could not be told from the right one.
LABELS = ("sadness", "anger", "joy")
# Weights 25 times wider than usual, or all texts would get nearly equal logits.
_TINY = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
    "vocab_size": 600, "initializer_range": 0.5,
}  # fmt: skip
_FAMILIES: Mapping[str, dict[str, Any]] = {
    "bert": _TINY,
    "distilbert": {
        "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48,
        "vocab_size": 600, "initializer_range": 0.5,
    },
    # As many positions as BERTweet has: two of them stand for none.
    "roberta": {**_TINY, "max_position_embeddings": 130, "type_vocab_size": 1},
    "modernbert": {
        **_TINY, "bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3,
    },
    "deberta-v2": {
        **_TINY, "pooler_hidden_size": 32, "type_vocab_size": 0, "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"], "position_buckets": 256, "norm_rel_ebd": "layer_norm",
        "share_att_key": True, "position_biased_input": False,
    },
    "electra": {**_TINY, "embedding_size": 16},
    "albert": {**_TINY, "embedding_size": 16},
}  # fmt: skip


@pytest.fixture(scope="session")
def tiny_transformers(
    tmp_path_factory: pytest.TempPathFactory, tiny_data: Path
) -> Mapping[str, Path]:
    """A folder of each family, for reading only: a test that changes one copies it first."""
    texts = load_dataset(DataConfig(data=str(tiny_data))).train.texts
    parent = tmp_path_factory.mktemp("transformers")
    folders = {family: parent / f"tiny-{family}" for family in _FAMILIES}
    for family, folder in folders.items():
        build(Pretrained(f"acme/tiny-{family}", family, _FAMILIES[family]), texts, LABELS, folder)
    return folders


@pytest.fixture(scope="session")
def tiny_bert(tiny_transformers: Mapping[str, Path]) -> Path:
    """The folder of a tiny BERT with a head, for reading only."""
    return tiny_transformers["bert"]


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times nothing, since that takes a process for each contender, and seconds."""
    monkeypatch.setattr(compare, "measure", lambda *_, **__: [])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model as `save_pretrained` writes it."""
    # Here, behind `transformer_eval`, which keeps what it imports quiet.
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "mini"
    config = BertConfig(
        vocab_size=7,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad")
    vocabulary = {word: number for number, word in enumerate(words)}
    BertTokenizerFast(vocab=vocabulary).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def mini(saved: Path) -> Model:
    return {path.name: path.read_bytes() for path in saved.iterdir()}


@pytest.fixture
def played(mini: Model) -> Iterator[PlayedHub]:
    with serve(PlayedHub({"acme/mini": Repository(mini)})) as hub:
        yield hub
