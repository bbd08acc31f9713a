"""int8 of a fine-tuned transformer's encoder, with or without training.

Each row of a linear layer and each word vector has its own scale; quantization is symmetric. The
classification head, other embeddings, biases and normalization stay in fp32. In the mode "dynamic"
the activations of each token are quantized at run time, so that layers compute in integers; in
"weight-only" the weights are converted to floats when they are used, as word vectors always are.

Source: torchao, https://github.com/pytorch/ao
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import TorchAoConfig
from transformers.quantizers import AutoHfQuantizer

from compress.config import CompressConfig
from compress.origin import Origin
from compress.transformer.retraining import retrain
from featherweight.errors import requires
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

_RATE = 1e-5  # small, to adapt the weights to rounding and not to train them again
_WEIGHT_ONLY = Int8WeightOnlyConfig(set_inductor_config=False)
_LAYERS: Mapping[Mode, Any] = {
    "dynamic": Int8DynamicActivationInt8WeightConfig(set_inductor_config=False),
    "weight-only": _WEIGHT_ONLY,
}
# The same rounding of rows (N, K) in training; `eps`, the smallest scale, is that of storage.
_ROWS = IntxFakeQuantizeConfig(torch.int8, "per_channel", eps=torch.finfo(torch.float32).eps)


def quantized(
    classifier: TransformerClassifier, network: Any, mode: Mode, method: str, workspace: Path
) -> TransformerClassifier:
    """Returns a classifier with the weights of a network in int8, loaded from its files.

    The network, in fp32 and with a classification head, is changed in place. Labels, tokenizer and
    device are those of `classifier`, and `method` is the suffix of the name.
    """
    encoder = network.base_model  # everything except the head
    quantize_(encoder, _LAYERS[mode], _is_layer)
    quantize_(encoder, _WEIGHT_ONLY, _words_of(encoder))
    recipe = TorchAoConfig(_LAYERS[mode], include_input_output_embeddings=True)
    network.config.quantization_config = recipe
    network.hf_quantizer = AutoHfQuantizer.from_config(recipe)  # converts tensors when saving
    setattr(network.config, NUMBER_FORMAT, "int8")
    return classifier.with_network(method, network, workspace)


def quantize(origin: Origin, config: CompressConfig, workspace: Path) -> TransformerClassifier:
    """Returns a copy in int8."""
    network = copy.deepcopy(origin.classifier.model)
    return quantized(origin.classifier, network, config.int8_mode, "int8", workspace)


def train_quantized(
    origin: Origin, config: CompressConfig, workspace: Path
) -> TransformerClassifier:
    """Returns a copy in int8 after quantization-aware training.

    Every step computes with rounded numbers and updates the exact weights. If no epoch is better on
    validation than rounding alone, the weights are only rounded.
    """
    classifier, mode = origin.classifier, config.int8_mode
    network = prepared(copy.deepcopy(classifier.model), mode)
    trained = retrain(classifier, network, config, origin.dataset, workspace, rate=_RATE)
    quantize_(trained, QATConfig(step="convert"), lambda *_: True)  # back to plain layers
    rounded = quantized(
        classifier, copy.deepcopy(classifier.model), mode, "qat", workspace / "rounded"
    )
    variant = quantized(classifier, trained, mode, "qat", workspace)
    return max(variant, rounded, key=origin.macro_f1)


def prepared(network: Any, mode: Mode) -> Any:
    """Makes a network compute like its int8 copy, in floats with straight-through gradients.

    Names and shapes of its parameters do not change.
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
    """Rounds the activations of each token as int8 layers do; torchao does so for matrices only."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = IntxFakeQuantizer(_ROWS)

    def forward(self, x: Tensor) -> Tensor:
        """Returns rounded activations (..., K)."""
        return self.rows(x.flatten(0, -2)).view_as(x)  # (B, T, K) -> (B * T, K)


def _is_layer(module: nn.Module, name: str) -> bool:
    # A part of BERT's head is inside the encoder.
    return isinstance(module, nn.Linear) and "pooler" not in name.split(".")


def _words_of(encoder: Any) -> Any:
    words = encoder.get_input_embeddings()
    return lambda module, _: module is words
