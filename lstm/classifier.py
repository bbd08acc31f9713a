"""Tokenizer, module and labels as one Classifier, and the one portable file that carries them."""

import hashlib
import json
import lzma
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import Tensor

from featherweight.classifier import Classifier, FloatArray
from featherweight.device import resolve_device
from featherweight.errors import WeightsError, first_line
from featherweight.run import MODEL, Run, atomic_open
from featherweight.run import TOKENIZER as RUN_TOKENIZER
from featherweight.weights import LSTM_FORMAT, read_metadata, with_sorted_metadata
from lstm.batching import TokenBatch, pad
from lstm.config import ModelConfig
from lstm.encoder import LSTMClassifier
from lstm.storage import Format, restore, rounded, store
from lstm.tokenizer import load_tokenizer, token_ids

TOKENIZER = "tokenizer.json.lzma"
_LARGEST_TOKENIZER = 100_000_000  # bytes unpacked; a small file must not fill the memory
_COMPUTED_IN = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class TextClassifier(Classifier):
    """The LSTM as a contender.

    Each tensor is stored in a format of its own (`lstm.storage`), and what is stored is what
    computes. A model that is all fp16 or bf16 computes in it on CUDA; everything else computes in
    fp32 with the numbers that the file stands for, since a CPU has no fast half-precision LSTM
    and torch none in integers.

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
        halved = device == "cuda" and self.stored_dtype in ("fp16", "bf16")
        self.dtype = self.stored_dtype if halved else "fp32"
        # Through the stored format, so that every device computes with the numbers on disk.
        module.load_state_dict(
            {name: rounded(it, self.storage[name]) for name, it in state.items()}
        )
        self.module = module.to(device, _COMPUTED_IN[self.dtype]).eval()
        self.config = config
        self.device = device

    def with_network(
        self, name: str, module: LSTMClassifier, storage: Mapping[str, Format] | Format = "fp32"
    ) -> "TextClassifier":
        """Returns a classifier of the same words, labels and shape with another network.

        Args:
            name: What tables call it.
            module: A network of its own, no other's.
            storage: Format of each parameter, or of all.
        """
        return TextClassifier(
            name, self.labels, self.tokenizer, module, self.config, self.device, storage
        )

    @property
    def stored_dtype(self) -> str:
        """The format of all its tensors, or "mixed"."""
        formats = set(self.storage.values())
        return formats.pop() if len(formats) == 1 else "mixed"

    def encode(self, texts: Sequence[str]) -> TokenBatch:
        """Tokenizes and pads B texts; no text is empty afterwards."""
        ids, truncated = token_ids(self.tokenizer, texts)
        self.truncated_texts += truncated
        return pad(ids).to(self.device)

    @torch.inference_mode()
    def forward(self, batch: TokenBatch) -> FloatArray:
        """Returns the logits (B, C) as float32."""
        logits: FloatArray = self.module(batch.input_ids, batch.lengths).float().cpu().numpy()
        return logits

    @torch.inference_mode()
    def embed(self, batch: TokenBatch) -> FloatArray:
        """Returns the pooled states (B, F) as float32, one vector a text."""
        states: FloatArray = self.module.embed(batch.input_ids, batch.lengths).float().cpu().numpy()
        return states

    def num_tokens(self, batch: TokenBatch) -> int:
        """Returns the sum of the texts' lengths."""
        return int(batch.lengths.sum())

    def num_parameters(self) -> int:
        """Counts the network's parameters."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def size_bytes(self) -> int:
        """Returns the size of the portable file."""
        return len(self.serialize())

    def serialize(self) -> bytes:
        """Returns the portable file: tensors, and in its header all that rebuilds the rest."""
        tensors = {
            f"{name}{ending}": part
            for name, tensor in self.module.state_dict().items()
            for ending, part in store(tensor.cpu(), self.storage[name]).items()
        }
        tensors[TOKENIZER] = _packed(self.tokenizer)
        metadata = {
            "format": LSTM_FORMAT,
            "name": self.name,
            "labels": json.dumps(self.labels, ensure_ascii=False),
            "config": json.dumps(asdict(self.config)),
            "storage": json.dumps(self.storage),
        }
        metadata["sha256"] = _sha256(tensors, metadata)
        return with_sorted_metadata(safetensors.torch.save(tensors, metadata))

    def save(self, path: Path) -> None:
        """Writes the portable file atomically."""
        with atomic_open(path, "wb") as file:
            file.write(self.serialize())

    def save_in(self, run: Run) -> None:
        """Writes its files into a run."""
        self.save(run.file(MODEL))
        run.write_json(RUN_TOKENIZER, json.loads(self.tokenizer.to_str()))

    @classmethod
    def load(cls, path: Path, device: str) -> "TextClassifier":
        """Reads a portable file.

        Raises:
            WeightsError: It is truncated, altered or does not hold what it says.
            UsageError: The device is not there.
        """
        device = resolve_device(device)
        metadata = read_metadata(path)
        try:
            tensors = safetensors.torch.load(path.read_bytes())
        except SafetensorError as error:
            raise WeightsError(f"{path} is truncated or damaged ({error}): copy it again") from None
        if metadata.pop("sha256", None) != _sha256(tensors, metadata):
            raise WeightsError(f"{path} was altered since it was written: copy it again")
        try:
            labels = tuple(json.loads(metadata["labels"]))
            config = ModelConfig(**json.loads(metadata["config"]))
            tokenizer = _unpacked(tensors.pop(TOKENIZER))
            module = LSTMClassifier(tokenizer.get_vocab_size(), len(labels), config)
            storage = json.loads(metadata["storage"])
            module.load_state_dict(_restored(tensors, storage, module.state_dict()))
            return cls(metadata["name"], labels, tokenizer, module, config, device, storage)
        except (KeyError, TypeError, ValueError, RuntimeError, lzma.LZMAError) as error:
            reason = first_line(error)
            raise WeightsError(f"{path} does not fit this version ({reason})") from None


def model_config(config: ModelConfig) -> ModelConfig:
    """Returns only the architecture of a larger config."""
    return ModelConfig(**{field.name: getattr(config, field.name) for field in fields(ModelConfig)})


def _packed(tokenizer: Tokenizer) -> Tensor:
    """Returns a tokenizer as bytes in a tensor.

    Not as metadata, since in the header it would be a good part of a small model; and the
    vocabulary as a list, since the position of a word says its id.
    """
    content = json.loads(tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = sorted(vocabulary, key=vocabulary.__getitem__)
    packed = lzma.compress(json.dumps(content, ensure_ascii=False).encode(), lzma.FORMAT_ALONE)
    return torch.frombuffer(bytearray(packed), dtype=torch.uint8)


def _unpacked(packed: Tensor) -> Tokenizer:
    """Reads what `_packed` wrote.

    Raises:
        ValueError: It is no tokenizer.
    """
    decoder = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_LARGEST_TOKENIZER)
    content = json.loads(decoder.decompress(packed.numpy().tobytes(), _LARGEST_TOKENIZER))
    words = content["model"]["vocab"]
    content["model"]["vocab"] = {word: index for index, word in enumerate(words)}
    return load_tokenizer(json.dumps(content))


def _restored(
    tensors: Mapping[str, Tensor], storage: Mapping[str, Format], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Returns the tensors of a network from those of its file.

    Raises:
        ValueError: The file holds other tensors than the network has.
    """
    parts: dict[str, dict[str, Tensor]] = {name: {} for name in state}
    for key, tensor in tensors.items():
        name = next((name for name in (key, key.rpartition(".")[0]) if name in parts), None)
        if name is None:
            raise ValueError(f"a tensor {key} that the network does not have")
        parts[name][key.removeprefix(name)] = tensor
    return {name: restore(parts[name], storage[name], it.shape) for name, it in state.items()}


def _sha256(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Hashes every tensor (name, type, shape, bytes) and every metadata entry."""
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
