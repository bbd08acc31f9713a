"""A fine-tuned transformer on disk -> Classifier."""

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from featherweight.classifier import Classifier, FloatArray
from featherweight.device import cpu_flags, resolve_device
from featherweight.errors import MissingExtraError, WeightsError, first_line
from featherweight.run import MODEL, TRANSFORMER, Run
from featherweight.sparse import is_sparse, read_sparse
from transformer_eval.lora import ADAPTER, pack_where_it_fits, trained_only, with_adapter
from transformer_eval.normalization import NORMALIZERS
from transformer_eval.pooling import mean_state

MAX_LENGTH = 512  # tokens; no text of this kind is longer, and few models take more
NORMALIZER = "text_normaliser"  # entry of config.json: what texts go through before the tokenizer
NUMBER_FORMAT = "number_format"  # entry of config.json: what its integers are called in tables
_NUMBERED = "LABEL_"  # how transformers calls classes that nobody named
_DTYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
_HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}

# Our own messages say what matters; a table of unused head weights does not.
transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()


class TransformerClassifier(Classifier):
    """A transformer with a classification head as a contender.

    Attributes:
        folder: The files that it was loaded from.
        tokenizer: Its tokenizer.
        model: The network, in evaluation mode.
        dtype: What it computes in: "fp32", "fp16", "bf16", or the integers of its weights.
        stored_dtype: What its files hold, which the device may not compute in.
        max_length: Tokens after which a text is cut.
        normalizer: What texts go through before the tokenizer; None: nothing.
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
        cls,
        folder: Path,
        device: str = "auto",
        name: str | None = None,
        labels: Sequence[str] = (),
    ) -> "TransformerClassifier":
        """Loads what `save_pretrained` wrote; nothing pickled, no code of others.

        What is stored in 16 bits is computed in them on CUDA, and in bf16 on CPUs that have
        instructions for it; elsewhere the rounded numbers are computed in fp32.

        Args:
            folder: Holds config.json, safetensors weights and the tokenizer's files.
            device: "auto", "cpu" or "cuda".
            name: What tables call it; None: the folder's name.
            labels: Names of the classes where its config only numbers them.

        Raises:
            WeightsError: Files are missing or damaged, need code of their own, or have no
                trained head.
            UsageError: CUDA is asked for and there is none.
            MissingExtraError: The library that quantized it is not installed.
        """
        device = resolve_device(device)
        tokenizer = load_tokenizer(folder)
        dtype = _computed_dtype(_stored_dtype(folder), device)
        model = load_model(AutoModelForSequenceClassification, folder, dtype)
        _look_words_up_by_row(model)
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
        logits: FloatArray = self.model(**batch).logits.float().cpu().numpy()
        return logits

    @torch.inference_mode()
    def embed(self, batch: Any) -> FloatArray:
        """Returns the mean state (B, H) of each text in the last layer as float32."""
        states = self.model.base_model(**batch).last_hidden_state.float()  # (B, T, H)
        return mean_state(states, batch["attention_mask"]).cpu().numpy()

    def num_tokens(self, batch: Any) -> int:
        """Returns the sum of the texts' lengths."""
        return int(batch["attention_mask"].sum())

    def num_parameters(self) -> int:
        """Counts the network's parameters; shared ones once."""
        return int(self.model.num_parameters())  # knows that two numbers of 4 bits share a byte

    def size_bytes(self) -> int:
        """Returns the size of its files: weights, config, tokenizer and adapters."""
        adapter = self.folder / ADAPTER
        return shipped_bytes(self.folder) + (shipped_bytes(adapter) if adapter.is_dir() else 0)

    def with_network(
        self, name: str, network: Any, folder: Path, tokenizer: Any = None
    ) -> "TransformerClassifier":
        """Returns a classifier of the same labels with another network, as its files give it back.

        Args:
            name: What tables call it.
            network: With a classification head.
            folder: Where it is written; what is there is replaced.
            tokenizer: If it is another one, too.
        """
        shutil.rmtree(folder, ignore_errors=True)
        network.save_pretrained(folder)
        (tokenizer or self.tokenizer).save_pretrained(folder)
        return TransformerClassifier.load(folder, self.device, name)

    def save_in(self, run: Run) -> None:
        """Copies its files into a folder of a run."""
        shutil.copytree(self.folder, run.file(TRANSFORMER))


def tokenized(
    tokenizer: Any, texts: Sequence[str], normalizer: str | None, max_length: int, kind: str
) -> tuple[Any, int]:
    """Makes a batch of B texts, padded to the longest of them.

    Args:
        tokenizer: Of `transformers`.
        texts: As they are.
        normalizer: Name of what they go through first; None: nothing.
        max_length: Tokens after which a text is cut.
        kind: Of the arrays: "pt" or "np".

    Returns:
        The batch, and how many texts were cut.
    """
    texts = [NORMALIZERS[normalizer](text) for text in texts] if normalizer else list(texts)
    batch = tokenizer(
        texts, padding="longest", truncation=True, max_length=max_length, return_tensors=kind
    )
    lengths = batch["attention_mask"].sum(1).tolist()
    # Of those as long as can be, some just fit.
    full = [text for text, n in zip(texts, lengths, strict=True) if n >= max_length]
    whole = tokenizer(full)["input_ids"] if full else []
    return batch, sum(len(ids) > max_length for ids in whole)


def load_tokenizer(folder: Path) -> Any:
    """Loads a tokenizer from its files.

    Raises:
        WeightsError: They are missing, damaged, or need code of their own.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # each kind of tokenizer fails in its own way
        raise _unusable(folder, "tokenizer", error) from error
    if not tokenizer.get_vocab().keys() - set(tokenizer.all_special_tokens):
        # Where its files are missing, some kinds start without any words and say nothing.
        raise WeightsError(f"{folder} has no vocabulary: its tokenizer's files are missing")
    if tokenizer.pad_token is None:
        raise WeightsError(f"{folder}: its tokenizer has no padding token: not usable in batches")
    if tokenizer.is_fast:
        # Some files ask for a fixed length, which would be timed as if texts were that long.
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


def load_model(kind: Any, folder: Path, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """Loads a network from safetensors.

    Args:
        kind: Auto class of `transformers`, such as AutoModelForSequenceClassification.
        folder: Holds config.json and the weights.
        dtype: Format that its floats get, whatever they are stored in.
        **changes: Entries of its config to replace; with `num_labels` a head may be new.

    Raises:
        WeightsError: They are missing, damaged, need code of their own, or lack a trained head.
        MissingExtraError: The library that quantized it is not installed.
    """
    try:
        _need_library(folder)
        model, report = _reader(kind, folder, changes)(
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=dtype,
            output_loading_info=True,
        )
    except ModuleNotFoundError as error:
        raise MissingExtraError((error.name or "torchao").split(".")[0], "transformers") from None
    except WeightsError:
        raise
    except Exception as error:  # as many kinds as architectures
        raise _unusable(folder, "model", error) from error
    if report["missing_keys"] and kind is AutoModelForSequenceClassification and not changes:
        raise WeightsError(
            f"{folder} has no trained classification head: fine-tune it first "
            "(featherweight finetune --model …)"
        )
    return model


def _need_library(folder: Path) -> None:
    """Fails as an import does if bitsandbytes quantized a model and is not installed."""
    recipe = (_config(folder) or {}).get("quantization_config")
    if isinstance(recipe, dict) and recipe.get("quant_method") == "bitsandbytes":
        import_module("bitsandbytes")


def _stored_dtype(folder: Path) -> torch.dtype:
    """Returns the format in 16 bits that a model was saved in, or else fp32."""
    config = _config(folder) or {}
    return _HALVES.get(str(config.get("dtype", config.get("torch_dtype"))), torch.float32)


def _computed_dtype(stored: torch.dtype, device: str) -> torch.dtype:
    """Returns what a device computes in, given what is stored."""
    if device == "cuda":
        return stored
    fast = stored == torch.bfloat16 and {"avx512_bf16", "amx_bf16"} & set(cpu_flags())
    return stored if fast else torch.float32


def _look_words_up_by_row(model: Any) -> None:
    """Turns words that are stored in int8 into floats one by one; torchao turns all, each time."""
    words = model.get_input_embeddings()
    if hasattr(words.weight, "qdata"):
        words.forward = MethodType(_rows_in_floats, words)


def _rows_in_floats(words: Any, ids: torch.Tensor) -> torch.Tensor:
    """Returns the vectors (B, T, E) of ids (B, T)."""
    return words.weight.qdata[ids] * words.weight.scale[ids]


def _reader(kind: Any, folder: Path, changes: dict[str, Any]) -> Callable[..., Any]:
    """Returns the `from_pretrained` that fits how the weights are stored.

    Raises:
        WeightsError: They are sparse, and damaged.
    """
    path = folder / MODEL
    if not (path.is_file() and is_sparse(path)):
        return partial(kind.from_pretrained, folder, **changes)
    config, others = AutoConfig.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, return_unused_kwargs=True, **changes
    )
    # Tensors in memory are taken by the class of the network itself only.
    with torch.device("meta"):
        network = type(kind.from_config(config, trust_remote_code=False))
    state = read_sparse(path)
    return partial(network.from_pretrained, None, config=config, state_dict=state, **others)


def class_names(config: Any, stated: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of a head's classes in id order.

    Args:
        config: The model's; `id2label` names the classes, or numbers them as LABEL_0, LABEL_1, ….
        stated: Names to use where they are only numbered, and as many.

    Raises:
        WeightsError: A class has no entry in `id2label`.
    """
    lost = set(range(config.num_labels)) - set(config.id2label)
    if lost:
        raise WeightsError(f"{config.name_or_path}: id2label of config.json lacks {min(lost)}")
    names = tuple(str(config.id2label[index]) for index in range(config.num_labels))
    return tuple(stated) if numbered(names) and len(stated) == len(names) else names


def numbered(names: Sequence[str]) -> bool:
    """Says whether class names are only numbers."""
    return all(name.removeprefix(_NUMBERED).isdecimal() for name in names)


def max_length(tokenizer: Any, config: Any) -> int:
    """Returns how many tokens a model takes: by its tokenizer, its positions, and 512 at most."""
    positions = getattr(config, "max_position_embeddings", MAX_LENGTH) or MAX_LENGTH
    if config.model_type in ("roberta", "xlm-roberta"):
        positions -= config.pad_token_id + 1  # their positions start behind that of padding
    return int(min(tokenizer.model_max_length, positions, MAX_LENGTH))


def shipped_bytes(folder: Path) -> int:
    """Returns the bytes of what a model needs: safetensors weights, configs, tokenizer."""
    kinds = (".safetensors", ".json", ".txt", ".model", ".codes")
    # A downloaded folder may hold the same model for other libraries too.
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix in kinds)


def _config(folder: Path) -> dict[str, Any] | None:
    """Returns what a model's config.json says; None if it cannot be read."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return config if isinstance(config, dict) else None


def _unusable(folder: Path, what: str, error: Exception) -> WeightsError:
    config = _config(folder)
    if config is None:
        return WeightsError(f"{folder} has no config.json that can be read: is it a model?")
    if "auto_map" in config and "trust_remote_code" in str(error):
        return WeightsError(f"{folder} needs code of its own, which is never run: choose another")
    if "ignore_mismatched_sizes" in str(error):
        return WeightsError(f"{folder}: its weights are of other sizes than its config.json says")
    reason = first_line(error)
    return WeightsError(f"{folder}: its {what} cannot be loaded ({reason})")
