"""Leaving out hidden units of an LSTM: smaller matrices, and so less to compute as well.

A unit is worth what it weighs: the norm of all weights that it reads with (its rows of the four
gates) and is read by (its column of the recurrent matrix, of the next layer, of pooling and head).
Source: Murray & Chiang (2015), Auto-Sizing Neural Networks: With Applications to n-gram Language
Models (a unit's weights as one group, judged by their norm); Li et al. (2017), Pruning Filters for
Efficient ConvNets (the weakest of each layer leave at once, and training goes on).
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from lstm.classifier import TextClassifier
from lstm.config import ModelConfig
from lstm.encoder import LSTMClassifier

_GATES = 4  # a unit has a row of each: input, forget, cell, output


def without_weak_units(classifier: TextClassifier, share: float) -> TextClassifier:
    """Returns a copy that has only the strongest units of each layer and direction.

    Args:
        classifier: In fp32.
        share: Of the units that are kept; one is left at the least.
    """
    config = classifier.config
    smaller = replace(config, hidden_dim=max(1, round(share * config.hidden_dim)))
    whole = classifier.module.state_dict()
    state = dict(whole)
    for layer in range(config.num_layers):
        kept = {
            lstm: _strengths(whole, config, layer, lstm)
            .argsort(descending=True, stable=True)[: smaller.hidden_dim]
            .sort()
            .values
            for lstm in _directions(config, layer)
        }
        for lstm, units in kept.items():
            rows = _rows(units, config.hidden_dim)
            for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
                state[f"{lstm}.{name}"] = state[f"{lstm}.{name}"][rows]
            state[f"{lstm}.weight_hh_l0"] = state[f"{lstm}.weight_hh_l0"][:, units]
        columns = torch.cat([it + n * config.hidden_dim for n, it in enumerate(kept.values())])
        for name in _readers(whole, config, layer):
            state[name] = state[name][:, columns]
    module = LSTMClassifier(len(whole["embedding.weight"]), len(classifier.labels), smaller)
    module.load_state_dict(state)
    return TextClassifier(
        classifier.name, classifier.labels, classifier.tokenizer, module, smaller, classifier.device
    )


def _strengths(state: Mapping[str, Tensor], config: ModelConfig, layer: int, lstm: str) -> Tensor:
    """Returns the norm of each unit's weights, (H,)."""
    hidden_dim = config.hidden_dim
    first = hidden_dim * list(_directions(config, layer)).index(lstm)
    recurrent = state[f"{lstm}.weight_hh_l0"].square()  # (4 * H, H)
    rows = state[f"{lstm}.weight_ih_l0"].square().sum(dim=1) + recurrent.sum(dim=1)
    squares = rows.reshape(_GATES, hidden_dim).sum(dim=0) + recurrent.sum(dim=0)
    for name in _readers(state, config, layer):
        squares += state[name][:, first : first + hidden_dim].square().sum(dim=0)
    return squares.sqrt()


def _directions(config: ModelConfig, layer: int) -> Iterator[str]:
    """Yields the names of a layer's LSTMs, in the order of their states."""
    yield f"encoder.forwards.{layer}"
    if config.bidirectional:
        yield f"encoder.backwards.{layer}"


def _readers(state: Mapping[str, Tensor], config: ModelConfig, layer: int) -> list[str]:
    """Returns the names of the matrices whose columns are multiplied with a layer's states."""
    if layer + 1 < config.num_layers:
        return [f"{lstm}.weight_ih_l0" for lstm in _directions(config, layer + 1)]
    return [name for name in ("attention.weight", "head.weight") if name in state]


def _rows(units: Tensor, hidden_dim: int) -> Tensor:
    return torch.cat([units + gate * hidden_dim for gate in range(_GATES)])
