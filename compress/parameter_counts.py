"""Counts the parameters of a model by kind: all, nonzero, and their formats on disk."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from compress.onnx.classifier import OnnxClassifier
from featherweight.classifier import Classifier
from lstm.classifier import TextClassifier

_DTYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.int8: "int8"}
_ON_DISK = {"F32": "fp32", "F16": "fp16", "BF16": "bf16", "I8": "int8"}  # names of safetensors

Counts = tuple[int, int, str]  # parameters, nonzero parameters, format on disk


def parameter_counts(classifier: Classifier) -> Mapping[str, Any]:
    """Returns `parameters`, `not_zero` and `formats` of each kind of parameter.

    An exported graph has one kind, without `not_zero`.
    """
    if isinstance(classifier, OnnxClassifier):
        total = {"parameters": classifier.num_parameters(), "formats": [classifier.dtype]}
        return {"LSTM" if classifier.kind == "lstm" else "transformer": total}
    parts = _lstm_parts if isinstance(classifier, TextClassifier) else _transformer_parts
    kinds: dict[str, dict[str, Any]] = {}
    for name, (parameters, not_zero, stored_as) in parts(classifier):
        kind = kinds.setdefault(name, {"parameters": 0, "not_zero": 0, "formats": []})
        kind["parameters"] += parameters
        kind["not_zero"] += not_zero
        kind["formats"] = sorted({*kind["formats"], stored_as})
    return kinds


def _lstm_parts(classifier: Any) -> Iterator[tuple[str, Counts]]:
    kinds = {"embedding": "embedding", "encoder": "LSTM"}
    for name, parameter in classifier.module.named_parameters():
        counts = parameter.numel(), int(parameter.count_nonzero()), classifier.storage[name]
        yield kinds.get(name.split(".")[0], "linear"), counts


def _transformer_parts(classifier: Any) -> Iterator[tuple[str, Counts]]:
    network = classifier.model
    modules = dict(network.named_modules())
    # Parameters stored in few bits may be floats in memory.
    on_disk = _formats_on_disk(classifier.folder)
    for name, parameter in network.named_parameters():
        kind = _kind(name, modules[name.rpartition(".")[0]], network.base_model_prefix)
        values, in_memory = _values(parameter)
        names = _names_on_disk(name)
        stored_as = next((on_disk[name] for name in names if name in on_disk), in_memory)
        yield kind, (values.numel(), int(values.count_nonzero()), stored_as)


def _kind(name: str, module: nn.Module, body: str) -> str:
    """Returns the kind of a parameter of a module; `body` is the name of the encoder."""
    if "norm" in type(module).__name__.lower():
        return "normalization"
    if ".lora_" in name:
        return "adapters"
    if not name.startswith(f"{body}.") or ".pooler." in name:
        return "head"
    if isinstance(module, nn.Embedding) or ".embedding" in name:
        return "embeddings"
    return "attention" if ".attention." in name or ".attn." in name else "feed-forward"


def _values(parameter: Any) -> tuple[Tensor, str]:
    """Returns the values of a parameter as floats, and their format in memory."""
    if state := getattr(parameter, "quant_state", None):  # bitsandbytes
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(parameter.data, state), parameter.quant_type
    if hasattr(parameter, "qdata"):  # torchao
        return parameter.dequantize(), _DTYPES.get(parameter.qdata.dtype, "int4")
    return parameter.detach(), _DTYPES.get(parameter.dtype, str(parameter.dtype))


def _formats_on_disk(folder: Path) -> dict[str, str]:
    """Returns the format of each tensor in a folder's files, except packed ones."""
    dtypes: dict[str, str] = {}
    for path in folder.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            dtypes |= {name: file.get_slice(name).get_dtype() for name in file.offset_keys()}
    return {name: _ON_DISK[dtype] for name, dtype in dtypes.items() if dtype in _ON_DISK}


def _names_on_disk(name: str) -> tuple[str, ...]:
    """Returns the possible names of a parameter on disk.

    In order: unchanged, by torchao, sparse, and by peft in the base model and in adapters.
    """
    module, _, own = name.rpartition(".")
    adapter = f"base_model.model.{name.replace('.default', '')}"
    return (
        name, f"{module}._{own}_qdata", f"{name}.values", name.replace(".base_layer", ""), adapter
    )  # fmt: skip
