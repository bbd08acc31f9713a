"""int8 of a fine-tuned transformer: its encoder's weights in integers, afterwards or learned.

Each row of a linear layer and each word's vector has a scale of its own, and zero stays zero. The
classification head, other embeddings, biases and normalization stay in fp32. In the mode "dynamic"
each token's numbers are rounded as they come, so that layers compute in integers; in "weight-only"
the weights are turned back into floats where they are used, as vectors of words always are.

Source: torchao, https://github.com/pytorch/ao
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import TorchAoConfig
from transformers.quantizers import AutoHfQuantizer

from compress.config import CompressConfig
from compress.lstm.retraining import macro_f1
from compress.transformer.retraining import retrain
from featherweight.data.dataset import Dataset
from featherweight.errors import requires
from featherweight.run import TRANSFORMER, Run
from transformer_eval.classifier import NUMBER_FORMAT, TransformerClassifier

with requires("transformers"):
    from torchao.quantization import (
        Int8DynamicActivationInt8WeightConfig,
        Int8WeightOnlyConfig,
        quantize_,
    )
    from torchao.quantization.qat import FakeQuantizedLinear, IntxFakeQuantizeConfig, QATConfig
    from torchao.quantization.qat.fake_quantizer import IntxFakeQuantizer

Mode = Literal["dynamic", "weight-only"]

_RATE = 1e-5  # what was found is to be mended, not left
_WEIGHT_ONLY = Int8WeightOnlyConfig(set_inductor_config=False)
_LAYERS: Mapping[Mode, Any] = MappingProxyType(
    {
        "dynamic": Int8DynamicActivationInt8WeightConfig(set_inductor_config=False),
        "weight-only": _WEIGHT_ONLY,
    }
)
# The same rounding of rows (N, K) in training; the smallest scale is the one that is stored.
_ROWS = IntxFakeQuantizeConfig(torch.int8, "per_channel", eps=torch.finfo(torch.float32).eps)


def quantized(
    classifier: TransformerClassifier, network: Any, mode: Mode, method: str, workspace: Path
) -> TransformerClassifier:
    """Returns a classifier with a network's weights in int8, as its files give it back.

    Args:
        classifier: The trained transformer, whose labels, tokenizer and device are used.
        network: With a classification head, in fp32; it is changed.
        mode: Compute in integers, or only store weights in them.
        method: What stands in brackets behind its name.
        workspace: Folder in which it is written.
    """
    encoder = network.base_model  # all but the head
    quantize_(encoder, _LAYERS[mode], _is_layer)
    quantize_(encoder, _WEIGHT_ONLY, _words_of(encoder))
    recipe = TorchAoConfig(_LAYERS[mode], include_input_output_embeddings=True)
    network.config.quantization_config = recipe
    network.hf_quantizer = AutoHfQuantizer.from_config(recipe)  # takes tensors apart for the file
    setattr(network.config, NUMBER_FORMAT, "int8")
    return classifier.with_network(
        f"{classifier.name} ({method})", network, workspace / TRANSFORMER
    )


def quantize(
    classifier: TransformerClassifier,
    origin: Run,
    config: CompressConfig,
    dataset: Dataset,
    workspace: Path,
) -> TransformerClassifier:
    """Returns a copy in int8.

    Args:
        classifier: In fp32.
        origin: Its run.
        config: The mode.
        dataset: Not needed: what is rounded depends on the weights alone.
        workspace: Folder in which it is written.
    """
    network = copy.deepcopy(classifier.model)
    return quantized(classifier, network, config.int8_mode, "int8", workspace)


def train_quantized(
    classifier: TransformerClassifier,
    origin: Run,
    config: CompressConfig,
    dataset: Dataset,
    workspace: Path,
) -> TransformerClassifier:
    """Returns a copy in int8 that was trained to be good in it.

    Every step computes with rounded numbers, and what is learned is the weights before rounding.
    If no epoch is better on validation than rounding alone, nothing is learned.

    Args:
        classifier: In fp32.
        origin: Its run.
        config: The mode, and the numbers of the training.
        dataset: What is learned from and chosen on.
        workspace: Folder that keeps the state of a training that is cut off.
    """
    mode = config.int8_mode
    network = prepared(copy.deepcopy(classifier.model), mode)
    trained = retrain(classifier, network, config, dataset, workspace, rate=_RATE)
    quantize_(trained, QATConfig(step="convert"), lambda *_: True)  # to plain layers again
    start = quantized(classifier, copy.deepcopy(classifier.model), mode, "qat", workspace / "start")
    learned = quantized(classifier, trained, mode, "qat", workspace)
    return learned if macro_f1(learned, dataset) >= macro_f1(start, dataset) else start


def prepared(network: Any, mode: Mode) -> Any:
    """Makes a network compute as its int8 copy will, in floats that gradients pass through.

    Names and shapes of its parameters stay as they are.
    """
    encoder = network.base_model
    rounding = QATConfig(weight_config=_ROWS, step="prepare")
    quantize_(encoder, rounding, _is_layer)
    quantize_(encoder, rounding, _words_of(encoder))
    if mode == "dynamic":
        for layer in encoder.modules():
            if isinstance(layer, FakeQuantizedLinear):
                layer.activation_fake_quantizer = _RoundedTokens()
    return network


class _RoundedTokens(nn.Module):
    """Rounds each token's numbers as int8 layers do; torchao itself has this for matrices only."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = IntxFakeQuantizer(_ROWS)

    def forward(self, x: Tensor) -> Tensor:
        """Returns rounded activations (..., K)."""
        return self.rows(x.flatten(0, -2)).view_as(x)  # (B, T, K) -> (B * T, K)


def _is_layer(module: nn.Module, name: str) -> bool:
    # BERT keeps a part of its head in the encoder.
    return isinstance(module, nn.Linear) and "pooler" not in name.split(".")


def _words_of(encoder: Any) -> Any:
    words = encoder.get_input_embeddings()
    return lambda module, _: module is words
