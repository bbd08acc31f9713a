"""QLoRA: the transformer in 4 bits, and adapters of low rank that are trained on it.

What is learned thereby are the adapters and the classification head, in fp32; what was rounded
stays as it is. They are kept apart in `transformer/adapter`, or added to the rounded weights.

Source: Dettmers et al. (2023), QLoRA, https://arxiv.org/abs/2305.14314
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from compress.config import CompressConfig
from compress.transformer.bnb_int8 import head_modules, rounded
from compress.transformer.retraining import retrain
from featherweight.data.dataset import Dataset
from featherweight.device import seed_everything
from featherweight.errors import UsageError, requires
from featherweight.run import TRANSFORMER, Run
from transformer_eval.classifier import TransformerClassifier, load_model
from transformer_eval.config import FinetuneConfig
from transformer_eval.fit import precision
from transformer_eval.lora import (
    ADAPTER,
    adapted,
    pack_where_it_fits,
    with_adapter,
    write_adapter,
)

# Source: the same paper, section 4: what models of up to 13 billion parameters were trained with.
RATE = 2e-4


def train_adapters(
    classifier: TransformerClassifier,
    origin: Run,
    config: CompressConfig,
    dataset: Dataset,
    workspace: Path,
) -> TransformerClassifier:
    """Returns a copy in 4 bits with trained adapters, or their sum in 16 bits.

    Args:
        classifier: In fp32.
        origin: Its run.
        config: Shape of the adapters, whether they are merged, and the numbers of the training.
        dataset: What is learned from and chosen on.
        workspace: Takes its files, and the state of a training that is cut off.

    Raises:
        UsageError: A layer that is to get adapters is not there.
        MissingExtraError: bitsandbytes or peft is not installed.
    """
    layers = adaptable(classifier.model, config.target_modules)
    name, folder = f"{classifier.name} (qlora)", workspace / TRANSFORMER
    # What is trained on is what is stored.
    base = classifier.with_network(name, _in_four_bits(classifier), folder).model
    network = _trainable(base, layers, config)
    # Layers of 4 bits compute in 16 by themselves; not every model takes that of all its layers.
    trained = retrain(classifier, network, config, dataset, workspace, rate=RATE, precision="fp32")
    write_adapter(trained, folder / ADAPTER)
    if config.merge:
        return classifier.with_network(name, _merged(classifier, folder), folder)
    return TransformerClassifier.load(folder, classifier.device, name)


def adaptable(network: Any, wanted: Sequence[str]) -> list[str]:
    """Returns the paths of the linear layers that get adapters.

    Args:
        network: In fp32, with a classification head.
        wanted: Paths or their ends, such as "query"; none: every linear layer but the head's.

    Raises:
        UsageError: One of them is no linear layer below the head.
    """
    head = {f"{name}." for name in head_modules(network)}
    layers = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and not f"{name}.".startswith(tuple(head))
    ]
    chosen = set()
    for it in wanted:
        found = {name for name in layers if f".{name}".endswith(f".{it}")}
        if not found:
            there = ", ".join(sorted({name.rpartition(".")[2] for name in layers}))
            raise UsageError(f"--target_modules: there is no layer {it}, take of {there}")
        chosen |= found
    return [name for name in layers if name in chosen] if wanted else layers


def _in_four_bits(classifier: TransformerClassifier) -> Any:
    fast = precision(FinetuneConfig(), classifier.device) == "bf16"
    return rounded(
        classifier,
        "nf4",
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if fast else torch.float32,
    )


def _trainable(base: Any, layers: list[str], config: CompressConfig) -> Any:
    with requires("transformers"):
        from peft import prepare_model_for_kbit_training
    seed_everything(config.seed)  # half of the adapters begins at random
    pack_where_it_fits(base, training=True)
    return adapted(
        prepare_model_for_kbit_training(base, use_gradient_checkpointing=False),  # type: ignore[no-untyped-call]
        r=config.rank,
        lora_alpha=config.lora_alpha,
        target_modules=layers,
        modules_to_save=head_modules(base),
    )


def _merged(classifier: TransformerClassifier, folder: Path) -> Any:
    """Returns the sum of base and adapters as a plain network in fp16."""
    base = load_model(AutoModelForSequenceClassification, folder).dequantize(torch.float32)
    total = with_adapter(base, folder / ADAPTER).merge_and_unload().state_dict()
    # One that was never rounded, as the library cannot save one that was.
    network = copy.deepcopy(classifier.model).half()
    network.load_state_dict(total)
    return network
