"""Removal of hidden units of an LSTM, which makes the matrices smaller and computation faster.

The importance of a unit is the norm of all its input weights (its rows of the four gates) and
output weights (its columns of the recurrent matrix, the next layer, attention and head).
Source: Murray & Chiang (2015), Auto-Sizing Neural Networks: With Applications to n-gram Language
Models (the norm of a unit's weights as one group); Li et al. (2017), Pruning Filters for Efficient
ConvNets (one-shot removal of the weakest of each layer, then retraining).
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from lstm.classifier import TextClassifier
from lstm.config import ModelConfig
from lstm.encoder import LSTMClassifier

_GATES = 4  # input, forget, cell, output: a unit has one row of each


def without_weak_units(classifier: TextClassifier, share: float) -> TextClassifier:
    """Returns a copy of an fp32 LSTM with only the strongest units of each layer and direction.

    Args:
        classifier: The LSTM.
        share: Fraction of the units to keep; at least one is kept.
    """
    config = classifier.config
    smaller = replace(config, hidden_dim=max(1, round(share * config.hidden_dim)))
    full = classifier.module.state_dict()
    state = dict(full)
    for layer in range(config.num_layers):
        kept = {
            lstm: _strengths(full, config, layer, lstm)
            .argsort(descending=True, stable=True)[: smaller.hidden_dim]
            .sort()
            .values
            for lstm in _directions(config, layer)
        }
        for lstm, units in kept.items():
            rows = torch.cat([units + gate * config.hidden_dim for gate in range(_GATES)])
            for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
                state[f"{lstm}.{name}"] = state[f"{lstm}.{name}"][rows]
            state[f"{lstm}.weight_hh_l0"] = state[f"{lstm}.weight_hh_l0"][:, units]
        columns = torch.cat([unit + n * config.hidden_dim for n, unit in enumerate(kept.values())])
        for name in _readers(full, config, layer):
            state[name] = state[name][:, columns]
    module = LSTMClassifier(len(full["embedding.weight"]), len(classifier.labels), smaller)
    module.load_state_dict(state)
    return TextClassifier(
        classifier.name, classifier.labels, classifier.tokenizer, module, smaller, classifier.device
    )


def _strengths(state: Mapping[str, Tensor], config: ModelConfig, layer: int, lstm: str) -> Tensor:
    """Returns the norm of the weights of each unit, (H,)."""
    hidden_dim = config.hidden_dim
    first = hidden_dim * list(_directions(config, layer)).index(lstm)
    recurrent = state[f"{lstm}.weight_hh_l0"].square()  # (4 * H, H)
    rows = state[f"{lstm}.weight_ih_l0"].square().sum(dim=1) + recurrent.sum(dim=1)
    squares = rows.reshape(_GATES, hidden_dim).sum(dim=0) + recurrent.sum(dim=0)
    for name in _readers(state, config, layer):
        squares += state[name][:, first : first + hidden_dim].square().sum(dim=0)
    return squares.sqrt()


def _directions(config: ModelConfig, layer: int) -> Iterator[str]:
    """Yields the names of a layer's LSTMs, in the order of their outputs."""
    yield f"encoder.forwards.{layer}"
    if config.bidirectional:
        yield f"encoder.backwards.{layer}"


def _readers(state: Mapping[str, Tensor], config: ModelConfig, layer: int) -> list[str]:
    """Returns the names of the matrices that are multiplied with the outputs of a layer."""
    if layer + 1 < config.num_layers:
        return [f"{lstm}.weight_ih_l0" for lstm in _directions(config, layer + 1)]
    return [name for name in ("attention.weight", "head.weight") if name in state]
