"""A frozen encoder: texts -> embeddings, cached by content so that no text is encoded twice."""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoModel

from featherweight.classifier import FloatArray, batches_by_length
from featherweight.data.texts import as_texts
from featherweight.disk.array_cache import cached_array
from featherweight.weights import file_sha256
from transformer_eval.classifier import (
    NORMALIZER,
    load_model,
    load_tokenizer,
    max_length,
    mean_state,
)
from transformer_eval.model_files import Files
from transformer_eval.tokenization import tokenized

# Files that define a model. Other tools add files to the same folder, even in the Hub's cache.
_MODEL_FILES = (
    "config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "vocab.*",
    "merges.txt", "bpe.codes", "*.model", "added_tokens.json", "special_tokens_map.json",
)  # fmt: skip


class Encoder:
    """A frozen encoder that turns texts into vectors.

    Attributes:
        files: The files it was loaded from.
        pooling: "mean" of the token states of a text, or "cls", the state of the first token.
        max_length: Maximum number of tokens; longer texts are truncated.
        normalizer: Name of the text normalization before the tokenizer, or None.
        device: "cpu" or "cuda".
    """

    def __init__(self, files: Files, pooling: str, max_tokens: int, device: str) -> None:
        self.files = files
        self.pooling = pooling
        self.device = device
        self.tokenizer = load_tokenizer(files.folder)
        self.model = load_model(AutoModel, files.folder).to(device).eval()
        self.max_length = min(max_tokens, max_length(self.tokenizer, self.model.config))
        # The config of a fine-tuned run names the normalization.
        tuned = getattr(self.model.config, NORMALIZER, None)
        self.normalizer = files.model.normalizer if files.model else tuned

    def encode(self, texts: Sequence[str]) -> tuple[Any, int]:
        """Tokenizes B texts; returns the batch and the number of truncated texts."""
        batch, truncated = tokenized(self.tokenizer, texts, self.normalizer, self.max_length, "pt")
        return batch.to(self.device), truncated

    @torch.inference_mode()
    def embed(self, batch: Any) -> FloatArray:
        """Returns the embeddings (B, H) of a batch as float32."""
        states = self.model(**batch).last_hidden_state.float()  # (B, T, H)
        if self.pooling == "cls":
            return np.asarray(states[:, 0].cpu())
        return np.asarray(mean_state(states, batch["attention_mask"]).cpu())

    def embed_all(self, texts: Sequence[str], batch_size: int) -> FloatArray:
        """Returns the embeddings (N, H) of N texts, in their order."""
        texts = as_texts(texts)
        batches = list(batches_by_length([len(text) for text in texts], batch_size))
        vectors = [
            self.embed(self.encode([texts[index] for index in batch])[0])
            for batch in tqdm(batches, desc=self.files.name, unit="batch", disable=None)
        ]
        return np.concatenate(vectors)[np.argsort(np.concatenate(batches))]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of its files and of the settings that its embeddings depend on."""
        digest = hashlib.sha256(f"{self.pooling} {self.max_length} {self.normalizer}".encode())
        for path in sorted(self.files.folder.iterdir()):
            if path.is_file() and any(path.match(pattern) for pattern in _MODEL_FILES):
                digest.update(path.name.encode())
                digest.update(bytes.fromhex(file_sha256(path)))
        return digest.hexdigest()

    def embed_cached(self, texts: Sequence[str], batch_size: int, cache_dir: Path) -> FloatArray:
        """Returns the embeddings (N, H) of N texts from the cache, or computes and caches them."""
        texts = as_texts(texts)
        content = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
        key = hashlib.sha256(f"{self.fingerprint} {content}".encode()).hexdigest()
        path = cache_dir / f"{key}.safetensors"
        return cached_array(path, "embeddings", lambda: self.embed_all(texts, batch_size))
