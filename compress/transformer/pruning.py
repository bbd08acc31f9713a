"""Pruning a transformer: small weights become zero, rare pieces leave the vocabulary.

A zero saves nothing by itself, neither time nor bytes: here a pruned matrix is stored as one bit a
number and the numbers that are left, where that is smaller.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from compress.config import CompressConfig
from compress.magnitude import smallest_masks
from compress.transformer.quantization import quantized
from compress.transformer.retraining import retrain
from compress.transformer.vocabulary import without_rare_pieces
from featherweight.data.dataset import Dataset
from featherweight.run import MODEL, TRANSFORMER, Run
from featherweight.sparse import make_sparse
from transformer_eval.classifier import TransformerClassifier

_VOCABULARY = "vocabulary"  # folder of the model between its two prunings


def prune(
    classifier: TransformerClassifier,
    origin: Run,
    config: CompressConfig,
    dataset: Dataset,
    workspace: Path,
) -> TransformerClassifier:
    """Returns a pruned copy, trained to recover if the config grants epochs for it.

    Args:
        classifier: In fp32.
        origin: Its run.
        config: How much goes, and the numbers of the recovery.
        dataset: Counts the pieces; what is learned from and chosen on.
        workspace: Takes its files, and the state of a training that is cut off.

    Raises:
        UsageError: Pieces should leave a vocabulary that is not WordPiece.
    """
    classifier, network = _pruned(classifier, config, dataset, workspace)
    name = f"{classifier.name} (prune)"
    variant = classifier.with_network(name, network, workspace / TRANSFORMER)
    make_sparse(variant.folder / MODEL)
    return TransformerClassifier.load(variant.folder, variant.device, name)


def prune_int8(
    classifier: TransformerClassifier,
    origin: Run,
    config: CompressConfig,
    dataset: Dataset,
    workspace: Path,
) -> TransformerClassifier:
    """Returns a pruned copy whose linear layers but the head's are in 8 bits; see `prune`.

    Quantization is symmetric, so what is zero stays zero.
    """
    classifier, network = _pruned(classifier, config, dataset, workspace)
    return quantized(classifier, network, config.int8_mode, "prune+int8", workspace)


def _pruned(
    classifier: TransformerClassifier, config: CompressConfig, dataset: Dataset, workspace: Path
) -> tuple[TransformerClassifier, Any]:
    """Returns the classifier whose tokenizer fits, and the pruned network."""
    if config.vocabulary < 1:
        folder = workspace / _VOCABULARY
        classifier = without_rare_pieces(classifier, dataset, config.vocabulary, folder)
    network = copy.deepcopy(classifier.model)
    masks = smallest_masks(matrices(network), config.sparsity, config.scope == "layer")
    zero_pruned(network, masks)
    if config.retraining_epochs:
        callbacks = [KeepPruned(masks)]
        network = retrain(classifier, network, config, dataset, workspace, callbacks=callbacks)
    return classifier, network


def matrices(network: Any) -> dict[str, Tensor]:
    """Returns the weights that may become zero, by name.

    They are those of the word embeddings and of the linear layers below the head: the few numbers
    that every answer goes through stay whole.
    """
    embedding = network.get_input_embeddings()
    return {
        f"{name}.weight": module.weight
        for name, module in network.named_modules()
        if module is embedding
        or (isinstance(module, nn.Linear) and name.startswith(f"{network.base_model_prefix}."))
    }


@torch.no_grad()
def zero_pruned(network: Any, masks: Mapping[str, Tensor]) -> None:
    """Sets to zero what the masks do not keep."""
    for name, kept in masks.items():
        network.get_parameter(name).mul_(kept)


class KeepPruned(TrainerCallback):  # type: ignore[misc]  # types of transformers are skipped
    """Keeps pruned weights at zero in a training, which would move them at each step."""

    def __init__(self, masks: Mapping[str, Tensor]) -> None:
        self._masks = masks

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        """Undoes what the step did to them."""
        zero_pruned(model, self._masks)
