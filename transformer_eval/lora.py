"""Writes and loads low-rank adapters of a frozen transformer.

Source: Hu et al. (2021), LoRA, https://arxiv.org/abs/2106.09685
"""

import json
import warnings
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from featherweight.disk.atomic import atomic_open
from featherweight.errors import MissingExtraError, WeightsError, first_line, requires

ADAPTER = "adapter"  # folder inside that of the transformer
WEIGHTS = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"
_PACKED_ROWS = 32  # rows that the fast 4-bit CPU kernel processes at once


def adapted(network: Any, **shape: Any) -> Any:
    """Adds new adapters to a network; its outputs stay the same until they are trained.

    Args:
        network: Has a classification head; it is modified.
        **shape: Arguments of `peft.LoraConfig`: rank, layers, and modules to train in full.

    Returns:
        A `peft.PeftModel`.

    Raises:
        MissingExtraError: peft is not installed.
    """
    with requires("transformers"):
        from peft import LoraConfig, get_peft_model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft uses a deprecated name
        return get_peft_model(network, LoraConfig(**shape))


def write_adapter(network: Any, folder: Path) -> None:
    """Writes the adapters of a `peft.PeftModel` and the modules that were trained in full."""
    from peft import get_peft_model_state_dict

    config = network.peft_config[network.active_adapter]
    config.base_model_name_or_path = None  # always the parent folder
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules)
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    tensors = get_peft_model_state_dict(network, save_embedding_layers=False)
    with atomic_open(folder / WEIGHTS, "wb") as file:
        file.write(safetensors.torch.save(tensors, {"format": "pt"}))


def with_adapter(network: Any, folder: Path) -> Any:
    """Adds adapters to a network, loaded from their files.

    Args:
        network: The network they were trained on; it is modified.
        folder: Written by `write_adapter`; other files in it are not read.

    Returns:
        A `peft.PeftModel`.

    Raises:
        WeightsError: The files are missing, damaged, or do not fit the network.
        MissingExtraError: peft is not installed.
    """
    for name in (_CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise WeightsError(f"{folder} has no {name}: adapters are loaded from safetensors only")
    try:
        facts = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        names = ("r", "lora_alpha", "target_modules", "modules_to_save")
        shape = {name: facts[name] for name in names}
        with torch.random.fork_rng():  # the initial values of the adapters are overwritten
            network = adapted(network, **shape, inference_mode=True)
        _fill(network, safetensors.torch.load_file(folder / WEIGHTS))
    except MissingExtraError:
        raise
    except Exception as error:  # peft checks little itself and raises many kinds
        reason = first_line(error)
        raise WeightsError(f"{folder}: its adapters cannot be loaded ({reason})") from error
    return network


def _fill(network: Any, tensors: dict[str, Any]) -> None:
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    expected = get_peft_model_state_dict(network, save_embedding_layers=False)
    unmatched = expected.keys() ^ tensors.keys()
    if unmatched:
        raise ValueError(f"{min(unmatched)} is in only one of {_CONFIG} and {WEIGHTS}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise ValueError(
                f"{name} has the shape {[*tensor.shape]}, not {[*expected[name].shape]}"
            )
    set_peft_model_state_dict(network, tensors)


def trained_only(network: Any) -> Any:
    """Returns the network of a `peft.PeftModel` without the untrained copies of its modules.

    peft keeps the original weights of the modules that were trained in full.
    """
    from peft.utils import ModulesToSaveWrapper

    base = network.get_base_model()
    for name, module in [*base.named_modules()]:
        if isinstance(module, ModulesToSaveWrapper):
            parent, _, attribute = name.rpartition(".")
            trained = module.modules_to_save[module.active_adapters[0]]
            setattr(base.get_submodule(parent), attribute, trained)
    return base


def pack_where_it_fits(network: Any, training: bool = False) -> None:
    """Lets bitsandbytes pack 4-bit layers for the CPU only if they still work afterwards.

    On CPUs with bf16 instructions, bitsandbytes packs the weights of a layer at its first forward
    pass in evaluation mode. Packed layers have no gradients, and some layer sizes fail.

    Args:
        network: Any network; other kinds of layers are not changed.
        training: Whether gradients are needed.
    """
    for layer in network.modules():
        if getattr(layer, "support_avx512bf16_for_cpu", False):
            block = layer.weight.quant_state.blocksize
            fits = layer.out_features % _PACKED_ROWS == 0 and layer.in_features % block == 0
            layer.support_avx512bf16_for_cpu = fits and not training
