"""QLoRA: a transformer in 4 bits with trained low-rank adapters.

Only the adapters and the classification head are trained, in fp32; the quantized weights stay
fixed. Both are stored in `transformer/adapter`, or merged into the weights.

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
from compress.origin import Origin
from compress.transformer.bnb_int8 import head_modules, rounded
from compress.transformer.retraining import retrain
from featherweight.data.rows import listing
from featherweight.device import seed_everything
from featherweight.errors import UsageError, requires, shortened
from transformer_eval.classifier import TransformerClassifier, load_model
from transformer_eval.config import FinetuneConfig
from transformer_eval.fit import precision
from transformer_eval.lora import ADAPTER, adapted, pack_where_it_fits, with_adapter, write_adapter

# For models of up to 13 billion parameters. Source: the same paper, section 4.
_RATE = 2e-4


def train_adapters(
    origin: Origin, config: CompressConfig, workspace: Path
) -> TransformerClassifier:
    """Returns a copy in 4 bits with trained adapters, or merged with them in 16 bits.

    Raises:
        UsageError: A layer named by --target_modules does not exist.
        MissingExtraError: bitsandbytes or peft is not installed.
    """
    classifier: TransformerClassifier = origin.classifier
    layers = adaptable(classifier.model, config.target_modules)
    fast = precision(FinetuneConfig(), classifier.device) == "bf16"
    base = rounded(
        classifier,
        "nf4",
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if fast else torch.float32,
    )
    # Loaded from its files, so that training uses exactly the stored weights.
    variant = classifier.with_network("qlora", base, workspace)
    network = _trainable(variant.model, layers, config)
    # 4-bit layers compute in 16 bits anyway; some models fail with all layers in 16 bits.
    trained = retrain(
        classifier, network, config, origin.dataset, workspace, rate=_RATE, precision="fp32"
    )
    write_adapter(trained, variant.folder / ADAPTER)
    if config.merge:
        return classifier.with_network("qlora", _merged(classifier, variant.folder), workspace)
    return TransformerClassifier.load(variant.folder, variant.device, variant.name)


def adaptable(network: Any, wanted: Sequence[str]) -> list[str]:
    """Returns the paths of the linear layers that get adapters.

    Args:
        network: A transformer with a classification head.
        wanted: Paths or their ends, such as "query"; empty: every linear layer except the head.

    Raises:
        UsageError: One of them is not a linear layer below the head.
    """
    head = {f"{name}." for name in head_modules(network)}
    layers = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and not f"{name}.".startswith(tuple(head))
    ]
    for suffix in wanted:
        if not any(f".{name}".endswith(f".{suffix}") for name in layers):
            names = listing(sorted({name.rpartition(".")[2] for name in layers}))
            raise UsageError(
                f"--target_modules: there is no layer {shortened(suffix)}: choose from {names}"
            )
    suffixes = tuple(f".{suffix}" for suffix in wanted)
    return [name for name in layers if not wanted or f".{name}".endswith(suffixes)]


def _trainable(base: Any, layers: list[str], config: CompressConfig) -> Any:
    with requires("transformers"):
        from peft import prepare_model_for_kbit_training
    seed_everything(config.seed)  # adapters are initialized at random
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
    # A network that was never quantized: the library cannot save one that was.
    network = copy.deepcopy(classifier.model).half()
    network.load_state_dict(total)
    return network
