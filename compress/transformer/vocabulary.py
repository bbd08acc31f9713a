"""Removal of rare subwords from a transformer's vocabulary, with their embeddings.

Single characters are kept, so that every word can still be encoded. WordPiece takes the longest
matching subword from the left, and no longer one is added: a text whose subwords are all kept has
the same tokens and the same logits as before.
Source: Wu et al. (2016), Google's Neural Machine Translation System, section 4.1 (WordPiece).
"""

import copy
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from featherweight.data.dataset import Dataset
from featherweight.errors import UsageError
from featherweight.run import TOKENIZER, Run
from transformer_eval.classifier import TransformerClassifier, load_tokenizer
from transformer_eval.fit import tokenized_rows

_CONTINUED = "##"  # prefix of a subword that does not begin a word


def without_rare_pieces(
    classifier: TransformerClassifier, dataset: Dataset, share: float, workspace: Path
) -> TransformerClassifier:
    """Returns a copy whose vocabulary has only the subwords most frequent in the training split.

    Args:
        classifier: A transformer with a WordPiece vocabulary.
        dataset: Its training split is counted.
        share: Fraction of the subwords to keep; special tokens and single characters always are.
        workspace: Its files are written to the folder `transformer` in it.

    Raises:
        UsageError: Its vocabulary is not WordPiece.
    """
    tokenizer = classifier.tokenizer
    content = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else {}
    if not _is_word_piece(content):
        raise UsageError(
            f"{classifier.name} has no WordPiece vocabulary: --vocabulary fits BERT, DistilBERT "
            "and ELECTRA; compress this model without it"
        )
    pieces = _kept(classifier, dataset, share)
    old_ids = tokenizer.get_vocab()
    network = _with_rows(classifier.model, [old_ids[piece] for piece in pieces])
    smaller = _with_vocabulary(tokenizer, content, pieces)
    return classifier.with_network("", network, workspace, smaller)


def _is_word_piece(content: Mapping[str, Any]) -> bool:
    # Other types of post-processors store ids in another form.
    processor = content.get("post_processor") or {"type": "TemplateProcessing"}
    types = (content.get("model", {}).get("type"), processor["type"])
    return types == ("WordPiece", "TemplateProcessing")


def _kept(classifier: TransformerClassifier, dataset: Dataset, share: float) -> list[str]:
    """Returns the subwords to keep, in the order of their ids."""
    tokenizer = classifier.tokenizer
    rows = tokenized_rows(dataset.train, tokenizer, classifier.model.config)
    counts = Counter(index for row in rows for index in row["input_ids"])
    ids: dict[str, int] = tokenizer.get_vocab()
    needed = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}

    def rank(piece: str) -> tuple[bool, int, int]:
        always = piece in needed or len(piece.removeprefix(_CONTINUED)) == 1
        return not always, -counts[ids[piece]], ids[piece]

    always = sum(not rank(piece)[0] for piece in ids)
    kept = sorted(ids, key=rank)[: max(always, round(share * len(ids)))]
    return sorted(kept, key=ids.__getitem__)


def _with_rows(model: Any, rows: list[int]) -> Any:
    """Returns a copy of a network that embeds only some ids, renumbered in the given order."""
    network = copy.deepcopy(model)
    new_ids = {old: new for new, old in enumerate(rows)}
    embedding = network.get_input_embeddings()
    embedding.weight = nn.Parameter(embedding.weight.detach()[rows])
    embedding.num_embeddings = network.config.vocab_size = len(rows)
    embedding.padding_idx = new_ids.get(embedding.padding_idx)
    for name, value in network.config.to_dict().items():
        if name.endswith("_token_id") and isinstance(value, int):
            setattr(network.config, name, new_ids.get(value))
    return network


def _with_vocabulary(tokenizer: Any, content: dict[str, Any], pieces: list[str]) -> Any:
    """Returns a tokenizer with only these subwords, numbered in the given order."""
    ids = {piece: index for index, piece in enumerate(pieces)}
    content["model"]["vocab"] = ids
    for token in content["added_tokens"]:
        token["id"] = ids[token["content"]]
    for special in (content["post_processor"] or {}).get("special_tokens", {}).values():
        special["ids"] = [ids[token] for token in special["tokens"]]
    with TemporaryDirectory() as name:
        # Via files, from which each class of tokenizer can be built.
        tokenizer.save_pretrained(name)
        Run(Path(name)).write_json(TOKENIZER, content)
        return load_tokenizer(Path(name))
