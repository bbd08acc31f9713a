"""Tiny transformers, and helpers that make variants and look at the files they leave."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.config import CompressConfig
from compress.lstm import methods as lstm_methods
from compress.origin import Origin
from compress.variant import compress_run
from featherweight.data.dataset import Dataset
from featherweight.run import Run
from lstm.classifier import TextClassifier

# Weights 25 times wider than usual, or all texts would get nearly equal logits.
_SIZES = {"vocab_size": 600, "initializer_range": 0.5}
BERT = {
    **_SIZES, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 48,
}  # fmt: skip
# Sizes of a tiny transformer by model type.
FAMILIES: Mapping[str, dict[str, Any]] = {
    "bert": BERT,
    # Its head has two layers, one of them with a name that peft does not expect.
    "distilbert": {**_SIZES, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48},
    "roberta": {**BERT, "max_position_embeddings": 66, "type_vocab_size": 1},
    "modernbert": {
        **BERT, "bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3,
    },
    # Half of its attention cannot compute in bf16.
    "deberta-v2": {
        **BERT, "pooler_hidden_size": 32, "type_vocab_size": 0, "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"], "position_buckets": 256, "norm_rel_ebd": "layer_norm",
        "share_att_key": True, "position_biased_input": False,
    },
    "electra": {**BERT, "embedding_size": 16},
    "albert": {**BERT, "embedding_size": 16},
}  # fmt: skip


def compressed(weights: Path | None, method: Any = "fp16", **flags: Any) -> Run:
    return compress_run(CompressConfig(weights=weights, method=method, device="cpu", **flags))[0]


def made(
    classifier: Any, dataset: Dataset, workspace: Path, method: Any = "fp16", **flags: Any
) -> Any:
    """Applies a method to a model, without writing a run."""
    workspace.mkdir(exist_ok=True)
    if isinstance(classifier, TextClassifier):
        methods = lstm_methods.METHODS
    else:
        from compress.transformer import methods as transformer_methods

        methods = transformer_methods.METHODS
    config = CompressConfig(method=method, device="cpu", **flags)
    return methods[config.method].make(
        Origin(Run(workspace), classifier, dataset), config, workspace
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
