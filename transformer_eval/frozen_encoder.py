"""A frozen encoder: texts -> embeddings, kept by content so that no text is read twice."""

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

from featherweight.array_cache import cached_array
from featherweight.classifier import FloatArray, batches_by_length
from transformer_eval.classifier import (
    NORMALIZER,
    load_model,
    load_tokenizer,
    max_length,
    tokenized,
)
from transformer_eval.model_files import Files
from transformer_eval.pooling import mean_state

# What a model is read from. Other tools put files of their own beside it, into a cache as well.
_READ = (
    "config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "vocab.*",
    "merges.txt", "bpe.codes", "*.model", "added_tokens.json", "special_tokens_map.json",
)  # fmt: skip


class Encoder:
    """A frozen encoder that turns texts into vectors.

    Attributes:
        files: What it was loaded from.
        pooling: "mean" over the tokens of a text, or "cls", the first of them.
        max_length: Tokens after which a text is cut.
        normalizer: What texts go through before the tokenizer; None: nothing.
        device: "cpu" or "cuda".
    """

    def __init__(self, files: Files, pooling: str, longest: int, device: str) -> None:
        self.files = files
        self.pooling = pooling
        self.device = device
        self.tokenizer = load_tokenizer(files.folder)
        self.model = load_model(AutoModel, files.folder).to(device).eval()
        self.max_length = min(longest, max_length(self.tokenizer, self.model.config))
        # A run of a fine-tuned model says it in its config.
        tuned = getattr(self.model.config, NORMALIZER, None)
        self.normalizer = files.model.normalizer if files.model else tuned

    def encode(self, texts: Sequence[str]) -> tuple[Any, int]:
        """Makes a batch of B texts; returns it, and how many texts were cut."""
        batch, truncated = tokenized(self.tokenizer, texts, self.normalizer, self.max_length, "pt")
        return batch.to(self.device), truncated

    @torch.inference_mode()
    def embed(self, batch: Any) -> FloatArray:
        """Returns the embeddings (B, H) of a batch, float32."""
        states = self.model(**batch).last_hidden_state.float()  # (B, T, H)
        if self.pooling == "cls":
            return np.asarray(states[:, 0].cpu())
        return np.asarray(mean_state(states, batch["attention_mask"]).cpu())

    def embed_all(self, texts: Sequence[str], batch_size: int) -> FloatArray:
        """Returns the embeddings (N, H) of N texts, in their order."""
        batches = list(batches_by_length([len(text) for text in texts], batch_size))
        vectors = [
            self.embed(self.encode([texts[index] for index in batch])[0])
            for batch in tqdm(batches, desc=self.files.name, unit="batch", disable=None)
        ]
        return np.concatenate(vectors)[np.argsort(np.concatenate(batches))]

    @cached_property
    def fingerprint(self) -> str:
        """A sha256 over its files and what else its embeddings depend on."""
        told = f"{self.pooling} {self.max_length} {self.normalizer}"
        digest = hashlib.sha256(told.encode())
        for path in sorted(self.files.folder.iterdir()):
            if path.is_file() and any(path.match(kind) for kind in _READ):
                digest.update(path.name.encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    def embed_cached(self, texts: Sequence[str], batch_size: int, cache_dir: Path) -> FloatArray:
        """Reads the embeddings (N, H) that this encoder once made of these texts, or makes them."""
        content = hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()
        key = hashlib.sha256(f"{self.fingerprint} {content}".encode()).hexdigest()
        path = cache_dir / f"{key}.safetensors"
        return cached_array(path, "embeddings", lambda: self.embed_all(texts, batch_size))
