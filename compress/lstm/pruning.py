"""Pruning an LSTM: small weights become zero, rare words and weak hidden units leave.

A zero saves nothing by itself: here a pruned matrix is stored as one bit a number and the numbers
that are left, where that is smaller, and in integers zeros are the shortest code.
"""

import copy
import json
from collections import Counter
from pathlib import Path

from tokenizers import Tokenizer
from torch import Tensor

from compress.config import CompressConfig
from compress.lstm.hidden_units import without_weak_units
from compress.lstm.retraining import retrain
from compress.magnitude import smallest_masks
from featherweight.data.dataset import Dataset
from featherweight.errors import UsageError
from featherweight.sparse import smaller_when_sparse
from lstm.classifier import TextClassifier
from lstm.encoder import LSTMClassifier
from lstm.projection import as_stored, masked, project
from lstm.storage import Format
from lstm.tokenizer import PAD, UNK, load_tokenizer, token_ids

HEAD = "head.weight"  # the few numbers that every answer goes through stay whole


def prune(
    classifier: TextClassifier,
    config: CompressConfig,
    dataset: Dataset,
    workspace: Path,
    method: str,
    storage: dict[str, Format] | None = None,
) -> TextClassifier:
    """Returns a pruned copy, trained to recover if the config grants epochs for it.

    Args:
        classifier: In fp32.
        config: How much goes, and the numbers of the recovery.
        dataset: Counts the words; what is learned from and chosen on.
        workspace: Folder that keeps the state of a training that is cut off.
        method: What stands in brackets behind its name.
        storage: Format of each parameter, felt in the recovery; None: sparse where that is smaller.

    Raises:
        UsageError: The vocabulary is of pieces of words, and words should leave it.
    """
    if config.vocabulary < 1:
        classifier = without_rare_words(classifier, dataset, config.vocabulary)
    if config.hidden < 1:
        classifier = without_weak_units(classifier, config.hidden)
    masks = smallest_masks(matrices(classifier.module), config.sparsity, config.scope == "layer")
    projection = masked(masks, as_stored(storage) if storage else None)
    if config.retraining_epochs:
        classifier = retrain(classifier, config, dataset, workspace, projection)
    module = copy.deepcopy(classifier.module)
    project(module, masked(masks))
    storage = storage or _smallest_storage(module)
    return classifier.with_network(f"{classifier.name} ({method})", module, storage)


def matrices(module: LSTMClassifier) -> dict[str, Tensor]:
    """Returns the weights that may become zero: each matrix but the head's, by name."""
    return {
        name: parameter
        for name, parameter in module.named_parameters()
        if parameter.dim() == 2 and name != HEAD
    }


def _smallest_storage(module: LSTMClassifier) -> dict[str, Format]:
    return {
        name: "sparse" if smaller_when_sparse(parameter) else "fp32"
        for name, parameter in module.named_parameters()
    }


def without_rare_words(
    classifier: TextClassifier, dataset: Dataset, share: float
) -> TextClassifier:
    """Returns a copy that knows only the words most frequent in the training split.

    A text that holds none of the others is answered as before.

    Args:
        classifier: With a vocabulary of whole words.
        dataset: Whose training split is counted.
        share: Of the words that are kept.

    Raises:
        UsageError: The vocabulary is of pieces of words.
    """
    content = json.loads(classifier.tokenizer.to_str())
    if content["model"]["type"] != "WordLevel":
        raise UsageError(f"{classifier.name} has pieces of words: --vocabulary prunes whole words")
    ids, _ = token_ids(classifier.tokenizer, dataset.train.texts)
    counts = Counter(index for text in ids for index in text)
    vocabulary: dict[str, int] = content["model"]["vocab"]
    words = [word for word in vocabulary if word not in (PAD, UNK)]
    words.sort(key=lambda word: (-counts[vocabulary[word]], vocabulary[word]))
    kept = [PAD, UNK, *words[: max(1, round(share * len(words)))]]
    content["model"]["vocab"] = {word: index for index, word in enumerate(kept)}
    tokenizer: Tokenizer = load_tokenizer(json.dumps(content))
    module = LSTMClassifier(len(kept), len(classifier.labels), classifier.config)
    state = classifier.module.state_dict()
    state["embedding.weight"] = state["embedding.weight"][[vocabulary[word] for word in kept]]
    module.load_state_dict(state)
    return TextClassifier(
        classifier.name, classifier.labels, tokenizer, module, classifier.config, classifier.device
    )
