"""Pruning of an LSTM: small weights are set to zero, rare words and weak units are removed.

A zero alone saves no bytes. A pruned matrix is stored as one bit per weight and the nonzero weights
if that is smaller; in integer formats zeros have the shortest code.
"""

import copy
import json
from collections import Counter
from pathlib import Path

from torch import Tensor

from compress.config import CompressConfig
from compress.lstm.hidden_units import without_weak_units
from compress.lstm.quantization import Storage, int8_storage, quantize
from compress.lstm.retraining import retrain
from compress.magnitude import smallest_masks
from compress.origin import Origin
from featherweight.data.dataset import Dataset
from featherweight.errors import UsageError
from featherweight.sparse import smaller_when_sparse
from lstm.classifier import TextClassifier
from lstm.encoder import LSTMClassifier
from lstm.projection import as_stored, masked, project
from lstm.tokenizer import PAD, UNK, load_tokenizer, token_ids

HEAD = "head.weight"  # not pruned: few weights, used by every prediction


def prune(origin: Origin, config: CompressConfig, workspace: Path) -> TextClassifier:
    """Returns a pruned copy, retrained unless the config has no epochs for it.

    Raises:
        UsageError: Words are to be removed from a vocabulary of subwords.
    """
    pruned = _pruned(origin, config, workspace, None)
    storage: Storage = {
        name: "sparse" if smaller_when_sparse(parameter) else "fp32"
        for name, parameter in pruned.module.named_parameters()
    }
    return quantize(pruned, storage, "prune")


def prune_int8(origin: Origin, config: CompressConfig, workspace: Path) -> TextClassifier:
    """Returns a pruned copy in int8, except for the head; see `prune`."""
    storage: Storage = int8_storage(origin.classifier) | {HEAD: "fp32"}
    return quantize(_pruned(origin, config, workspace, storage), storage, "prune+int8")


def _pruned(
    origin: Origin, config: CompressConfig, workspace: Path, storage: Storage | None
) -> TextClassifier:
    """Returns a pruned copy in fp32; retraining takes the rounding of `storage` into account."""
    classifier = origin.classifier
    if config.vocabulary < 1:
        classifier = without_rare_words(classifier, origin.dataset, config.vocabulary)
    if config.hidden < 1:
        classifier = without_weak_units(classifier, config.hidden)
    masks = smallest_masks(matrices(classifier.module), config.sparsity, config.scope == "layer")
    if config.retraining_epochs:
        projection = masked(masks, as_stored(storage) if storage else None)
        classifier = retrain(classifier, config, origin.dataset, workspace, projection)
    module = copy.deepcopy(classifier.module)
    project(module, masked(masks))
    return classifier.with_network(classifier.name, module)


def matrices(module: LSTMClassifier) -> dict[str, Tensor]:
    """Returns the weights that may be pruned: each matrix except the head's, by name."""
    return {
        name: parameter
        for name, parameter in module.named_parameters()
        if parameter.dim() == 2 and name != HEAD
    }


def without_rare_words(
    classifier: TextClassifier, dataset: Dataset, share: float
) -> TextClassifier:
    """Returns a copy whose vocabulary has only the words most frequent in the training split.

    The logits of a text without removed words do not change.

    Args:
        classifier: An LSTM with a vocabulary of whole words.
        dataset: Its training split is counted.
        share: Fraction of the words to keep.

    Raises:
        UsageError: The vocabulary is of subwords.
    """
    content = json.loads(classifier.tokenizer.to_str())
    if content["model"]["type"] != "WordLevel":
        raise UsageError(f"{classifier.name} has subwords: --vocabulary removes whole words only")
    ids, _ = token_ids(classifier.tokenizer, dataset.train.texts)
    counts = Counter(index for text in ids for index in text)
    vocabulary: dict[str, int] = content["model"]["vocab"]
    words = [word for word in vocabulary if word not in (PAD, UNK)]
    words.sort(key=lambda word: (-counts[vocabulary[word]], vocabulary[word]))
    kept = [PAD, UNK, *words[: max(1, round(share * len(words)))]]
    content["model"]["vocab"] = {word: index for index, word in enumerate(kept)}
    tokenizer = load_tokenizer(json.dumps(content))
    module = LSTMClassifier(len(kept), len(classifier.labels), classifier.config)
    state = classifier.module.state_dict()
    state["embedding.weight"] = state["embedding.weight"][[vocabulary[word] for word in kept]]
    module.load_state_dict(state)
    return TextClassifier(
        classifier.name, classifier.labels, tokenizer, module, classifier.config, classifier.device
    )
