"""The LSTM text classifier: tokenizer, network and labels, stored in one portable file."""

import hashlib
import json
import lzma
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import Tensor

from featherweight.classifier import Classifier, FloatArray, IntArray, count_known
from featherweight.data.texts import as_texts
from featherweight.data.tokenizer_json import check_tokenizer
from featherweight.device import resolve_device
from featherweight.disk.atomic import atomic_open
from featherweight.errors import WeightsError, first_line
from featherweight.run import MODEL, Run
from featherweight.run import TOKENIZER as RUN_TOKENIZER
from featherweight.weights import LSTM_FORMAT, read_metadata, with_sorted_metadata
from lstm.batching import TokenBatch, pad
from lstm.config import ModelConfig
from lstm.encoder import LSTMClassifier
from lstm.storage import DTYPES, Format, restore, rounded, store
from lstm.tokenizer import load_tokenizer, padded, token_ids, unknown_ids

TOKENIZER = "tokenizer.json.lzma"
_MAX_TOKENIZER_BYTES = 100_000_000  # unpacked; guards against decompression bombs
_UNFIT = (  # raised for content that is not what `serialize` writes
    ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError,
    lzma.LZMAError, EOFError,
)  # fmt: skip


class TextClassifier(Classifier):
    """An LSTM text classifier.

    Each tensor has its own storage format (`lstm.storage`), and the network always computes with
    the values that the file restores to. A model stored entirely in fp16 or bf16 computes in that
    type on CUDA. All others compute in fp32: CPUs have no fast half-precision LSTM, and torch has
    no integer LSTM.

    Attributes:
        storage: Format of each tensor, by its name in the network.
        tokenizer: Normalizer, vocabulary and truncation.
        module: The network, in evaluation mode.
        config: Its architecture.
    """

    backend = "torch"

    def __init__(
        self,
        name: str,
        labels: tuple[str, ...],
        tokenizer: Tokenizer,
        module: LSTMClassifier,
        config: ModelConfig,
        device: str,
        storage: Mapping[str, Format] | Format = "fp32",
    ) -> None:
        self.name = name
        self.labels = labels
        self.tokenizer = tokenizer
        state = module.state_dict()
        self.storage = dict.fromkeys(state, storage) if isinstance(storage, str) else {**storage}
        half = device == "cuda" and self.stored_dtype in ("fp16", "bf16")
        self.dtype = self.stored_dtype if half else "fp32"
        # Rounded to the storage format, so that every device computes with the values on disk.
        module.load_state_dict(
            {name: rounded(tensor, self.storage[name]) for name, tensor in state.items()}
        )
        self.module = module.to(device, DTYPES[self.dtype]).eval()
        self.config = config
        self.device = device

    def with_network(
        self, name: str, module: LSTMClassifier, storage: Mapping[str, Format] | Format = "fp32"
    ) -> "TextClassifier":
        """Returns a classifier with the same tokenizer, labels and config and another network.

        Args:
            name: Name in tables.
            module: The network; it must not be shared with another classifier.
            storage: Format of each tensor, or of all.
        """
        return TextClassifier(
            name, self.labels, self.tokenizer, module, self.config, self.device, storage
        )

    @property
    def stored_dtype(self) -> str:
        """The format of all tensors, or "mixed"."""
        formats = set(self.storage.values())
        return formats.pop() if len(formats) == 1 else "mixed"

    def encode(self, texts: Sequence[str]) -> TokenBatch:
        """Tokenizes and pads B texts; each has at least one token."""
        ids, truncated = token_ids(self.tokenizer, as_texts(texts))
        self.truncated_texts += truncated
        return pad(ids).to(self.device)

    @torch.inference_mode()
    def forward(self, batch: TokenBatch) -> FloatArray:
        """Returns the logits (B, C) as float32."""
        logits: FloatArray = self.module(batch.input_ids, batch.lengths).float().cpu().numpy()
        return logits

    @torch.inference_mode()
    def embed(self, batch: TokenBatch) -> FloatArray:
        """Returns the pooled states (B, F) as float32, one vector per text."""
        states: FloatArray = self.module.embed(batch.input_ids, batch.lengths).float().cpu().numpy()
        return states

    def num_tokens(self, batch: TokenBatch) -> int:
        """Returns the number of tokens of a batch, padding not counted."""
        return int(batch.lengths.sum())

    def known_words(self, texts: Iterable[str]) -> IntArray:
        """Returns the number of tokens of each text (N,) that are in the vocabulary."""

        def input_ids(batch: list[str]) -> IntArray:
            ids, _ = token_ids(self.tokenizer, batch)
            return padded(ids)[0]

        return count_known(texts, input_ids, unknown_ids(self.tokenizer))

    def num_parameters(self) -> int:
        """Returns the number of parameters of the network."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def size_bytes(self) -> int:
        """Returns the size of the portable file."""
        return len(self.serialize())

    def serialize(self) -> bytes:
        """Returns the bytes of the portable file: tensors, and a header with everything else."""
        tensors = {
            f"{name}{suffix}": part
            for name, tensor in self.module.state_dict().items()
            for suffix, part in store(tensor.cpu(), self.storage[name]).items()
        }
        tensors[TOKENIZER] = _packed(self.tokenizer)
        metadata = {
            "format": LSTM_FORMAT,
            "name": self.name,
            "labels": json.dumps(self.labels, ensure_ascii=False),
            "config": json.dumps(asdict(self.config)),
            "storage": json.dumps(self.storage),
        }
        metadata["sha256"] = content_sha256(tensors, metadata)
        return with_sorted_metadata(safetensors.torch.save(tensors, metadata))

    def save(self, path: Path) -> None:
        """Writes the portable file atomically."""
        with atomic_open(path, "wb") as file:
            file.write(self.serialize())

    def save_in(self, run: Run) -> None:
        """Writes the model and its tokenizer into a run directory."""
        self.save(run.file(MODEL))
        run.write_json(RUN_TOKENIZER, json.loads(self.tokenizer.to_str()))

    @classmethod
    def load(cls, path: Path, device: str) -> "TextClassifier":
        """Reads a portable file.

        Raises:
            WeightsError: The file is truncated, altered or inconsistent.
            UsageError: The device is not available.
        """
        device = resolve_device(device)
        metadata = read_metadata(path)
        try:
            tensors = safetensors.torch.load(path.read_bytes())
            sha256 = content_sha256(tensors, {k: v for k, v in metadata.items() if k != "sha256"})
        except (SafetensorError, *_UNFIT) as error:
            reason = f"is truncated or damaged ({first_line(error)}): copy it again"
            raise WeightsError(f"{path} {reason}") from None
        if metadata.get("sha256") != sha256:
            raise WeightsError(f"{path} was altered since it was written: copy it again")
        try:
            labels = _label_names(metadata["labels"])
            config = ModelConfig(**json.loads(metadata["config"]))
            tokenizer = _unpacked(tensors.pop(TOKENIZER))
            storage = json.loads(metadata["storage"])
            module = _network(tensors, storage, (tokenizer.get_vocab_size(), len(labels), config))
            return cls(metadata["name"], labels, tokenizer, module, config, device, storage)
        except _UNFIT as error:
            raise WeightsError(
                f"{path} does not fit this version of featherweight ({first_line(error)})"
            ) from None


def model_config(config: ModelConfig) -> ModelConfig:
    """Returns the architecture fields of a training config."""
    return ModelConfig(**{field.name: getattr(config, field.name) for field in fields(ModelConfig)})


def _packed(tokenizer: Tokenizer) -> Tensor:
    """Returns a compressed tokenizer as a tensor of bytes.

    Uncompressed metadata would be a large part of a small model. The vocabulary becomes a list in
    which the position of a word is its id.
    """
    content = json.loads(tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = sorted(vocabulary, key=vocabulary.__getitem__)
    packed = lzma.compress(json.dumps(content, ensure_ascii=False).encode(), lzma.FORMAT_ALONE)
    return torch.frombuffer(bytearray(packed), dtype=torch.uint8)


def _unpacked(packed: Tensor) -> Tokenizer:
    """Returns the tokenizer that `_packed` stored, or raises a ValueError."""
    decoder = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MAX_TOKENIZER_BYTES)
    content = json.loads(decoder.decompress(packed.numpy().tobytes(), _MAX_TOKENIZER_BYTES))
    words = content["model"]["vocab"]
    content["model"]["vocab"] = {word: index for index, word in enumerate(words)}
    check_tokenizer(content)
    return load_tokenizer(json.dumps(content))


def _label_names(content: str) -> tuple[str, ...]:
    """Returns the labels of a file, or raises a ValueError if they are not distinct names."""
    labels = json.loads(content)
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError("the labels are not a list of names")
    if not labels or len(set(labels)) < len(labels):
        raise ValueError("the labels are not distinct")
    return tuple(labels)


def _network(
    tensors: Mapping[str, Tensor],
    storage: Mapping[str, Format],
    dimensions: tuple[int, int, ModelConfig],
) -> LSTMClassifier:
    """Returns the network of a file, or raises a ValueError if its tensors do not fit the config.

    Args:
        tensors: All tensors but the tokenizer.
        storage: Format of each tensor.
        dimensions: Number of tokens, number of labels, and architecture.
    """
    num_layers = dimensions[-1].num_layers
    if not 1 <= num_layers <= len(tensors):
        raise ValueError(f"{num_layers} layers, but {len(tensors)} tensors")
    # Shapes only: whatever numbers the config has, nothing is allocated before they are compared.
    with torch.device("meta"):
        shapes = LSTMClassifier(*dimensions).state_dict()
    state = _restored(tensors, storage, shapes)
    module = LSTMClassifier(*dimensions)
    module.load_state_dict(state)
    return module


def _restored(
    tensors: Mapping[str, Tensor], storage: Mapping[str, Format], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Returns the tensors of a network, or raises a ValueError for an unexpected tensor."""
    parts: dict[str, dict[str, Tensor]] = {name: {} for name in state}
    for key, tensor in tensors.items():
        name = next((name for name in (key, key.rpartition(".")[0]) if name in parts), None)
        if name is None:
            raise ValueError(f"unexpected tensor {key}")
        parts[name][key.removeprefix(name)] = tensor
    return {
        name: restore(parts[name], storage[name], tensor.shape) for name, tensor in state.items()
    }


def content_sha256(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Hashes every tensor (name, type, shape, bytes) and every metadata entry."""
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
