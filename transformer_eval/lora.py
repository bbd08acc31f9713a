"""Adapters of low rank beside a transformer that stays as it is: written, and put together again.

Source: Hu et al. (2021), LoRA, https://arxiv.org/abs/2106.09685
"""

import json
import warnings
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from featherweight.errors import MissingExtraError, WeightsError, first_line, requires
from featherweight.run import atomic_open

ADAPTER = "adapter"  # folder beside the files of the transformer
WEIGHTS = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"
_PACKED_ROWS = 32  # a fast 4-bit kernel for CPUs takes so many rows at once


def adapted(network: Any, **shape: Any) -> Any:
    """Gives a network new adapters, which change nothing until they are trained.

    Args:
        network: With a classification head; it is changed.
        **shape: Of `peft.LoraConfig`: rank, layers, and modules to be trained as a whole.

    Returns:
        A `peft.PeftModel`.

    Raises:
        MissingExtraError: peft is not installed.
    """
    with requires("transformers"):
        from peft import LoraConfig, get_peft_model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks by a name that will change
        return get_peft_model(network, LoraConfig(**shape))


def write_adapter(network: Any, folder: Path) -> None:
    """Writes the adapters of a `peft.PeftModel`, and the modules that were trained as a whole."""
    from peft import get_peft_model_state_dict

    config = network.peft_config[network.active_adapter]
    config.base_model_name_or_path = None  # it is the folder above, wherever that is
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules)
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    tensors = get_peft_model_state_dict(network, save_embedding_layers=False)
    with atomic_open(folder / WEIGHTS, "wb") as file:
        file.write(safetensors.torch.save(tensors, {"format": "pt"}))


def with_adapter(network: Any, folder: Path) -> Any:
    """Puts adapters from their files on a network.

    Args:
        network: What they were trained on; it is changed.
        folder: What `write_adapter` wrote; nothing else in it is read.

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
        shape = {it: facts[it] for it in ("r", "lora_alpha", "target_modules", "modules_to_save")}
        with torch.random.fork_rng():  # the numbers drawn for new adapters are not kept
            network = adapted(network, **shape, inference_mode=True)
        _fill(network, safetensors.torch.load_file(folder / WEIGHTS))
    except MissingExtraError:
        raise
    except Exception as error:  # of JSON, of safetensors, and of peft, which checks little itself
        reason = first_line(error)
        raise WeightsError(f"{folder}: its adapters cannot be loaded ({reason})") from error
    return network


def _fill(network: Any, tensors: dict[str, Any]) -> None:
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    own = get_peft_model_state_dict(network, save_embedding_layers=False)
    odd = own.keys() ^ tensors.keys()
    if odd:
        raise ValueError(f"{min(odd)} is in only one of {_CONFIG} and {WEIGHTS}")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise ValueError(f"{name} has the shape {[*tensor.shape]}, not {[*own[name].shape]}")
    set_peft_model_state_dict(network, tensors)


def trained_only(network: Any) -> Any:
    """Returns the network that a `peft.PeftModel` answers with.

    Of modules that were trained as a whole, it has only what they have become.
    """
    from peft.utils import ModulesToSaveWrapper

    answering = network.get_base_model()
    for name, module in [*answering.named_modules()]:
        if isinstance(module, ModulesToSaveWrapper):
            parent, _, own = name.rpartition(".")
            trained = module.modules_to_save[module.active_adapters[0]]
            setattr(answering.get_submodule(parent), own, trained)
    return answering


def pack_where_it_fits(network: Any, training: bool = False) -> None:
    """Keeps 4-bit layers from being rearranged for the CPU where that would break them.

    On CPUs with instructions for bf16, bitsandbytes rearranges the weights of a layer at its first
    forward pass in evaluation mode: layers of odd sizes fail then, and no gradient passes any more.

    Args:
        network: Any; layers of other kinds are left alone.
        training: Whether gradients are to pass.
    """
    for layer in network.modules():
        if getattr(layer, "support_avx512bf16_for_cpu", False):
            block = layer.weight.quant_state.blocksize
            fits = layer.out_features % _PACKED_ROWS == 0 and layer.in_features % block == 0
            layer.support_avx512bf16_for_cpu = fits and not training
