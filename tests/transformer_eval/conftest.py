"""Tiny transformers with random weights, and a session-wide fine-tuned run."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from featherweight.comparison import compare
from featherweight.data.dataset import DataConfig, load_dataset
from featherweight.timing import latency
from tests.conftest import untouched_generators
from tests.helpers.fetching import Model
from tests.helpers.finetuning import small, train
from tests.helpers.hub_server import FakeHub, Repository, serve
from transformer_eval.random_weights import build
from transformer_eval.registry import Pretrained

# The data has them in alphabetical order, so they must be matched by name. The permutation is a
# cycle of three because a swap of two is its own inverse.
LABELS = ("sadness", "anger", "joy")
# Weights 25 times wider than usual, so that the logits of texts differ clearly.
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
    # As many positions as BERTweet: two of them are unused.
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
    """One read-only folder per model family."""
    texts = load_dataset(DataConfig(data=str(tiny_data))).train.texts
    parent = tmp_path_factory.mktemp("transformers")
    folders = {family: parent / f"tiny-{family}" for family in _FAMILIES}
    for family, folder in folders.items():
        build(Pretrained(f"acme/tiny-{family}", family, _FAMILIES[family]), texts, LABELS, folder)
    return folders


@pytest.fixture(scope="session")
def tiny_bert(tiny_transformers: Mapping[str, Path]) -> Path:
    """The read-only folder of a tiny BERT with a head."""
    return tiny_transformers["bert"]


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path, tiny_bert: Path) -> Path:
    """A read-only run of two epochs, the only one in its output folder."""
    with untouched_generators():
        return train(small(tiny_data, tmp_path_factory.mktemp("outputs"), tiny_bert))


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the timing, which takes seconds and a process per model."""
    monkeypatch.setattr(compare, "measure", lambda *_, **__: [])


@pytest.fixture
def time_only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Limits the timing to one iteration of the models with certain names."""

    def limit(*names: str) -> None:
        def measure(contenders: Any, *arguments: Any, **options: Any) -> Any:
            chosen = [contender for contender in contenders if contender.name in names]
            options |= {"min_iterations": 1, "min_seconds": 0.0}
            return latency.measure(chosen, *arguments, **options)

        monkeypatch.setattr(compare, "measure", measure)

    return limit


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model written by `save_pretrained`."""
    # Imported after `transformer_eval`, which sets the log levels of libraries.
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


@pytest.fixture(scope="session")
def mini(saved: Path) -> Model:
    return {path.name: path.read_bytes() for path in saved.iterdir()}


@pytest.fixture
def hub(mini: Model) -> Iterator[FakeHub]:
    with serve(FakeHub({"acme/mini": Repository(mini)})) as running:
        yield running
