"""A fine-tuned transformer on disk -> Classifier."""

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging as transformers_logging

from featherweight.classifier import Classifier, FloatArray, IntArray
from featherweight.device import cpu_flags, resolve_device
from featherweight.errors import MissingExtraError, WeightsError, first_line, requires
from featherweight.run import MODEL, TRANSFORMER, Run
from featherweight.sparse import is_sparse, read_sparse
from transformer_eval.lora import ADAPTER, pack_where_it_fits, trained_only, with_adapter
from transformer_eval.tokenization import known_words, tokenized

MAX_LENGTH = 512  # tokens; the texts are short, and few models accept more
NORMALIZER = "text_normaliser"  # entry of config.json: name of the text normalization
NUMBER_FORMAT = "number_format"  # entry of config.json: name of its integer format in tables
_DTYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
_HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
_SAFE = {"local_files_only": True, "trust_remote_code": False}  # no download, no foreign code

# Errors are reported by this package; the library would also print a table of unused weights.
transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()


class TransformerClassifier(Classifier):
    """A transformer with a classification head.

    Attributes:
        folder: The files that it was loaded from.
        tokenizer: Its tokenizer.
        model: The network, in evaluation mode.
        dtype: Number format of the computation: "fp32", "fp16", "bf16" or an integer format.
        stored_dtype: Number format in its files, which the device may not compute in.
        max_length: Maximum number of tokens; longer texts are truncated.
        normalizer: Name of the text normalization before the tokenizer, or None.
    """

    backend = "torch"

    def __init__(
        self, name: str, labels: tuple[str, ...], folder: Path, tokenizer: Any, model: Any,
        device: str,
    ) -> None:  # fmt: skip
        self.name = name
        self.labels = labels
        self.folder = folder
        self.tokenizer = tokenizer
        self.model = model.to(device).eval()
        self.device = device
        integers = getattr(model.config, NUMBER_FORMAT, None)
        self.dtype = integers or _DTYPES[model.dtype]
        self.stored_dtype = integers or _DTYPES[_stored_dtype(folder)]
        self.max_length = max_length(tokenizer, model.config)
        self.normalizer = getattr(model.config, NORMALIZER, None)

    @classmethod
    def load(
        cls, folder: Path, device: str = "auto", name: str | None = None, labels: Sequence[str] = ()
    ) -> "TransformerClassifier":
        """Loads a model written by `save_pretrained`, without unpickling or running its code.

        Weights stored in 16 bits are computed in 16 bits on CUDA, and in bf16 on CPUs with
        instructions for it; otherwise they are converted to fp32.

        Args:
            folder: Holds config.json, safetensors weights and the tokenizer's files.
            device: "auto", "cpu" or "cuda".
            name: Name in tables; None: the folder's name.
            labels: Class names to use if the config only numbers the classes.

        Raises:
            WeightsError: Files are missing or damaged, need code of their own, or have no
                trained head.
            UsageError: CUDA is requested but not available.
            MissingExtraError: The library that quantized the model is not installed.
        """
        device = resolve_device(device)
        tokenizer = load_tokenizer(folder)
        dtype = _compute_dtype(_stored_dtype(folder), device)
        model = load_model(AutoModelForSequenceClassification, folder, dtype)
        embedding = model.get_input_embeddings()
        if hasattr(embedding.weight, "qdata"):  # torchao would dequantize all rows for each batch
            embedding.forward = MethodType(_dequantized_rows, embedding)
        if (folder / ADAPTER).is_dir():
            model = trained_only(with_adapter(model, folder / ADAPTER))
        pack_where_it_fits(model)
        names = class_names(model.config, labels)
        return cls(name or folder.name, names, folder, tokenizer, model, device)

    def encode(self, texts: Sequence[str]) -> Any:
        """Tokenizes B texts and pads them to the longest of them."""
        batch, truncated = tokenized(self.tokenizer, texts, self.normalizer, self.max_length, "pt")
        self.truncated_texts += truncated
        return batch.to(self.device)

    @torch.inference_mode()
    def forward(self, batch: Any) -> FloatArray:
        """Returns the logits (B, C) as float32."""
        return self.model(**batch).logits.float().cpu().numpy()

    @torch.inference_mode()
    def embed(self, batch: Any) -> FloatArray:
        """Returns the mean state (B, H) of each text in the last layer as float32."""
        states = self.model.base_model(**batch).last_hidden_state.float()  # (B, T, H)
        return mean_state(states, batch["attention_mask"]).cpu().numpy()

    def num_tokens(self, batch: Any) -> int:
        """Returns the number of tokens in a batch without padding."""
        return int(batch["attention_mask"].sum())

    def known_words(self, texts: Iterable[str]) -> IntArray:
        """Returns the number of tokens of each text (N,), neither unknown nor special ones."""
        return known_words(self.tokenizer, texts, self.normalizer, self.max_length)

    def num_parameters(self) -> int:
        """Returns the number of parameters; shared ones count once."""
        return int(self.model.num_parameters())  # counts two 4-bit values per stored byte

    def size_bytes(self) -> int:
        """Returns the size of its files: weights, config, tokenizer and adapters."""
        adapter = self.folder / ADAPTER
        return shipped_bytes(self.folder) + (shipped_bytes(adapter) if adapter.is_dir() else 0)

    def with_network(
        self, method: str, network: Any, workspace: Path, tokenizer: Any = None
    ) -> "TransformerClassifier":
        """Saves another network with the same labels and returns it as loaded from its files.

        Args:
            method: Suffix of the name in tables, or "".
            network: Has a classification head.
            workspace: Its files are written to the folder `transformer` in it.
            tokenizer: A different tokenizer; None: the one of this classifier.
        """
        name = f"{self.name} ({method})" if method else self.name
        folder = workspace / TRANSFORMER
        shutil.rmtree(folder, ignore_errors=True)
        network.save_pretrained(folder)
        (tokenizer or self.tokenizer).save_pretrained(folder)
        return TransformerClassifier.load(folder, self.device, name)

    def save_in(self, run: Run) -> None:
        """Copies its files into a folder of a run."""
        shutil.copytree(self.folder, run.file(TRANSFORMER))


def mean_state(states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Returns the mean (B, H) of states (B, T, H) over the tokens that are not padding."""
    mask = attention_mask.unsqueeze(-1)  # (B, T, 1)
    return (states * mask).sum(dim=1) / mask.sum(dim=1)


def load_tokenizer(folder: Path) -> Any:
    """Loads a tokenizer from its files.

    Raises:
        WeightsError: The files are missing, damaged, or need code of their own.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **_SAFE)
    except Exception as error:  # each kind of tokenizer raises its own exceptions
        raise _unusable(folder, "tokenizer", error) from error
    if not tokenizer.get_vocab().keys() - set(tokenizer.all_special_tokens):
        # Some kinds load with an empty vocabulary if their files are missing.
        raise WeightsError(f"{folder} has no vocabulary: its tokenizer's files are missing")
    if tokenizer.pad_token is None:
        raise WeightsError(f"{folder}: its tokenizer has no padding token, which batches need")
    if tokenizer.is_fast:
        # A fixed length in the tokenizer's file would be timed as if all texts were that long.
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


def load_model(
    kind: Any,
    folder: Path,
    dtype: torch.dtype = torch.float32,
    **changes: Any,
) -> Any:
    """Loads a network from safetensors.

    Args:
        kind: Auto class of `transformers`, such as AutoModelForSequenceClassification.
        folder: Holds config.json and the weights.
        dtype: Number format of the loaded floats, whatever format is stored.
        **changes: Entries of its config to replace; with `num_labels` it gets a new random head.

    Raises:
        WeightsError: Files are missing, damaged, need code of their own, or have no trained head.
        MissingExtraError: The library that quantized the model is not installed.
    """
    try:
        with requires("transformers"):
            _import_quantizer(folder)
            model, report = _reader(kind, folder, changes)(
                use_safetensors=True,
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below
                **_SAFE,
            )
    except (MissingExtraError, WeightsError):
        raise
    except Exception as error:  # each architecture raises its own exceptions
        raise _unusable(folder, "model", error) from error
    if report["mismatched_keys"] and "num_labels" not in changes:
        raise WeightsError(f"{folder}: its weights have other sizes than its config.json")
    if report["missing_keys"] and kind is AutoModelForSequenceClassification and not changes:
        raise WeightsError(
            f"{folder} has no trained classification head: fine-tune it first "
            "(featherweight finetune --model …)"
        )
    return model


def _import_quantizer(folder: Path) -> None:
    """Raises ModuleNotFoundError if bitsandbytes quantized the model and is not installed."""
    recipe = (_config(folder) or {}).get("quantization_config")
    if isinstance(recipe, dict) and recipe.get("quant_method") == "bitsandbytes":
        import_module("bitsandbytes")


def _stored_dtype(folder: Path) -> torch.dtype:
    """Returns the 16-bit format in which a model was saved, or else fp32."""
    config = _config(folder) or {}
    return _HALVES.get(str(config.get("dtype", config.get("torch_dtype"))), torch.float32)


def _compute_dtype(stored: torch.dtype, device: str) -> torch.dtype:
    """Returns the format in which a device computes with weights of a stored format."""
    if device == "cuda":
        return stored
    fast = stored == torch.bfloat16 and {"avx512_bf16", "amx_bf16"} & set(cpu_flags())
    return stored if fast else torch.float32


def _dequantized_rows(embedding: Any, ids: torch.Tensor) -> torch.Tensor:
    """Returns the vectors (B, T, E) of ids (B, T)."""
    return embedding.weight.qdata[ids] * embedding.weight.scale[ids]


def _reader(kind: Any, folder: Path, changes: dict[str, Any]) -> Callable[..., Any]:
    """Returns the `from_pretrained` for the format in which the weights are stored."""
    path = folder / MODEL
    if not (path.is_file() and is_sparse(path)):
        return partial(kind.from_pretrained, folder, **changes)
    config, others = AutoConfig.from_pretrained(
        folder, return_unused_kwargs=True, **_SAFE, **changes
    )
    # Auto classes do not accept tensors in memory; the network's own class does.
    with torch.device("meta"):
        network = type(kind.from_config(config, trust_remote_code=False))
    state = read_sparse(path)
    return partial(network.from_pretrained, None, config=config, state_dict=state, **others)


def class_names(config: Any, names_if_numbered: Sequence[str]) -> tuple[str, ...]:
    """Returns the class names of a head in id order.

    Args:
        config: The model's; `id2label` names the classes, or numbers them as LABEL_0, LABEL_1, ….
        names_if_numbered: Names to use if the classes are only numbered and as many as the names.

    Raises:
        WeightsError: A class has no entry in `id2label`.
    """
    unnamed = set(range(config.num_labels)) - set(config.id2label)
    if unnamed:
        raise WeightsError(f"{config.name_or_path}: id2label of config.json lacks {min(unnamed)}")
    names = tuple(str(config.id2label[index]) for index in range(config.num_labels))
    usable = numbered(names) and len(names_if_numbered) == len(names)
    return tuple(names_if_numbered) if usable else names


def numbered(names: Sequence[str]) -> bool:
    """Returns whether all class names are only numbers, such as LABEL_0 or 0."""
    return all(name.removeprefix("LABEL_").isdecimal() for name in names)


def max_length(tokenizer: Any, config: Any) -> int:
    """Returns the maximum number of tokens: the limit of tokenizer and positions, at most 512."""
    positions = getattr(config, "max_position_embeddings", MAX_LENGTH) or MAX_LENGTH
    if config.model_type in ("roberta", "xlm-roberta"):
        positions -= config.pad_token_id + 1  # their positions start after that of padding
    return int(min(tokenizer.model_max_length, positions, MAX_LENGTH))


def shipped_bytes(folder: Path) -> int:
    """Returns the size in bytes of safetensors weights, configs and tokenizer in a folder."""
    kinds = (".safetensors", ".json", ".txt", ".model", ".codes")
    # A downloaded folder may hold the same model for other libraries too.
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix in kinds)


def _config(folder: Path) -> dict[str, Any] | None:
    """Returns a model's config.json, or None if it is not readable."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return config if isinstance(config, dict) else None


def _unusable(folder: Path, part: str, error: Exception) -> WeightsError:
    config = _config(folder)
    if config is None:
        return WeightsError(f"{folder} has no readable config.json: is it a model?")
    if "auto_map" in config and str(config.get("model_type")) not in CONFIG_MAPPING:
        return WeightsError(f"{folder} needs code of its own, which is never run: choose another")
    return WeightsError(f"{folder}: its {part} cannot be loaded ({first_line(error)})")
