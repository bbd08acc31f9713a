"""Pruning of a transformer: small weights are set to zero, rare subwords are removed.

A zero alone saves neither time nor bytes. A pruned matrix is stored as one bit per weight and the
nonzero weights if that is smaller.
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
from compress.origin import Origin
from compress.transformer.quantization import quantized
from compress.transformer.retraining import retrain
from compress.transformer.vocabulary import without_rare_pieces
from featherweight.run import MODEL
from featherweight.sparse import make_sparse
from transformer_eval.classifier import TransformerClassifier

_VOCABULARY = "vocabulary"  # workspace of the model with the smaller vocabulary


def prune(origin: Origin, config: CompressConfig, workspace: Path) -> TransformerClassifier:
    """Returns a pruned copy, retrained unless the config has no epochs for it.

    Raises:
        UsageError: Subwords are to be removed from a vocabulary that is not WordPiece.
    """
    classifier, network = _pruned(origin, config, workspace)
    variant = classifier.with_network("prune", network, workspace)
    make_sparse(variant.folder / MODEL)
    return TransformerClassifier.load(variant.folder, variant.device, variant.name)


def prune_int8(origin: Origin, config: CompressConfig, workspace: Path) -> TransformerClassifier:
    """Returns a pruned copy whose linear layers except the head are in 8 bits; see `prune`.

    Quantization is symmetric, so zeros stay zero.
    """
    classifier, network = _pruned(origin, config, workspace)
    return quantized(classifier, network, config.int8_mode, "prune+int8", workspace)


def _pruned(
    origin: Origin, config: CompressConfig, workspace: Path
) -> tuple[TransformerClassifier, Any]:
    """Returns a classifier with the right tokenizer, and the pruned network."""
    classifier, dataset = origin.classifier, origin.dataset
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
    """Returns the weights that may be pruned, by name.

    They are the word embeddings and the linear layers below the head: the head has few weights,
    which every prediction uses.
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
    """Sets the weights to zero whose mask is False."""
    for name, kept in masks.items():
        network.get_parameter(name).mul_(kept)


class KeepPruned(TrainerCallback):  # type: ignore[misc]  # types of transformers are skipped
    """Keeps pruned weights at zero during training."""

    def __init__(self, masks: Mapping[str, Tensor]) -> None:
        self._masks = masks

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        """Sets them to zero again after an optimizer step."""
        zero_pruned(model, self._masks)
