"""Tokenizer, module and labels as one Classifier, and the one portable file that carries them."""

import hashlib
import json
import zlib
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
from featherweight.errors import WeightsError
from featherweight.loading import LSTM_FORMAT, read_metadata
from featherweight.run import atomic_open
from lstm.batching import TokenBatch, pad
from lstm.config import ModelConfig
from lstm.encoder import LSTMClassifier
from lstm.tokenizer import load_tokenizer, token_ids

TOKENIZER = "tokenizer.json.zlib"
_LARGEST_TOKENIZER = 100_000_000  # bytes unpacked; a small file must not fill the memory
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class TextClassifier(Classifier):
    """The LSTM as a contender.

    In half precision its tensors are stored in 16 bits. CUDA computes in them too; a CPU has no
    fast half-precision LSTM, so there the same numbers are computed in 32 bits.

    Attributes:
        stored_dtype: Number format of the stored tensors: "fp32", "fp16" or "bf16".
        tokenizer: Normaliser, vocabulary and truncation.
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
        stored_dtype: str = "fp32",
    ) -> None:
        self.name = name
        self.labels = labels
        self.tokenizer = tokenizer
        self.stored_dtype = stored_dtype
        self.dtype = stored_dtype if device == "cuda" else "fp32"
        # Through the stored format, so that every device computes with the numbers on disk.
        stored = module.to(DTYPES[stored_dtype])
        self.module = stored.to(device, DTYPES[self.dtype]).eval()
        self.config = config
        self.device = device

    def encode(self, texts: Sequence[str]) -> TokenBatch:
        """Tokenises and pads B texts; no text is empty afterwards."""
        ids, truncated = token_ids(self.tokenizer, texts)
        self.truncated_texts += truncated
        return pad(ids).to(self.device)

    @torch.inference_mode()
    def forward(self, batch: TokenBatch) -> FloatArray:
        """Returns the logits (B, C) as float32."""
        logits: FloatArray = self.module(batch.input_ids, batch.lengths).float().cpu().numpy()
        return logits

    def num_tokens(self, batch: TokenBatch) -> int:
        """Returns the sum of the texts' lengths."""
        return int(batch.lengths.sum())

    def num_parameters(self) -> int:
        """Counts the network's parameters."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def size_bytes(self) -> int:
        """Returns the size of the portable file."""
        return len(self.serialise())

    def serialise(self) -> bytes:
        """Returns the portable file: tensors, and in its header all that rebuilds the rest."""
        tensors = {
            name: tensor.to("cpu", DTYPES[self.stored_dtype])
            for name, tensor in self.module.state_dict().items()
        }
        # As bytes and not as metadata: in the header it would be a good part of a small model.
        packed = zlib.compress(self.tokenizer.to_str().encode(), level=9)
        tensors[TOKENIZER] = torch.frombuffer(bytearray(packed), dtype=torch.uint8)
        metadata = {
            "format": LSTM_FORMAT,
            "name": self.name,
            "labels": json.dumps(self.labels, ensure_ascii=False),
            "config": json.dumps(asdict(self.config)),
            "dtype": self.stored_dtype,
        }
        metadata["sha256"] = _sha256(tensors, metadata)
        return safetensors.torch.save(tensors, metadata)

    def save(self, path: Path) -> None:
        """Writes the portable file atomically."""
        with atomic_open(path, "wb") as file:
            file.write(self.serialise())

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
            packed = tensors.pop(TOKENIZER).numpy().tobytes()
            tokenizer = load_tokenizer(
                zlib.decompressobj().decompress(packed, _LARGEST_TOKENIZER).decode()
            )
            module = LSTMClassifier(tokenizer.get_vocab_size(), len(labels), config)
            module.load_state_dict(tensors)
            stored_dtype = metadata["dtype"]
            return cls(metadata["name"], labels, tokenizer, module, config, device, stored_dtype)
        except (KeyError, TypeError, ValueError, RuntimeError, zlib.error) as error:
            reason = str(error).splitlines()[0]
            raise WeightsError(f"{path} does not fit this version ({reason})") from None


def model_config(config: ModelConfig) -> ModelConfig:
    """Returns only the architecture of a larger config."""
    return ModelConfig(**{field.name: getattr(config, field.name) for field in fields(ModelConfig)})


def _sha256(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Hashes every tensor (name, type, shape, bytes) and every metadata entry."""
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
