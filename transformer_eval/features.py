"""`features`: logistic regression on the embeddings of a frozen encoder."""

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError
from sklearn.linear_model import LogisticRegression

from featherweight.baselines import MostFrequentClass
from featherweight.classifier import Classifier, FloatArray, IntArray
from featherweight.data.dataset import Dataset, Split
from featherweight.device import resolve_device
from featherweight.disk.atomic import atomic_open
from featherweight.errors import DataError, UsageError, WeightsError
from featherweight.quality.evaluation import Evaluation, evaluate
from featherweight.reports.reporting import draw_evaluation, write_evaluation
from featherweight.run import MODEL, Run
from featherweight.training.run_records import first_records, prepare_data, written_run
from featherweight.weights import FEATURES_FORMAT, read_metadata, with_sorted_metadata
from transformer_eval.classifier import shipped_bytes
from transformer_eval.config import FeaturesConfig
from transformer_eval.frozen_encoder import Encoder
from transformer_eval.model_files import fetch
from transformer_eval.tokenization import known_words

logger = logging.getLogger("featherweight")

_MAX_ITER = 3_000  # enough for the solver to converge


class FrozenFeatures(Classifier):
    """A frozen encoder with a linear head; its run holds only the head."""

    backend = "torch"

    def __init__(
        self, name: str, labels: tuple[str, ...], encoder: Encoder, head: dict[str, FloatArray]
    ) -> None:
        self.name = name
        self.labels = labels
        self.device = encoder.device
        self.encoder = encoder
        self.head = head

    def encode(self, texts: Sequence[str]) -> Any:
        """Tokenizes and pads B texts."""
        batch, truncated = self.encoder.encode(texts)
        self.truncated_texts += truncated
        return batch

    def forward(self, batch: Any) -> FloatArray:
        """Returns the logits (B, C)."""
        return self.embed(batch) @ self.head["coefficients"].T + self.head["intercepts"]

    def embed(self, batch: Any) -> FloatArray:
        """Returns the embeddings (B, H) of B texts as float32."""
        return self.encoder.embed(batch)

    def num_tokens(self, batch: Any) -> int:
        """Returns the number of tokens in a batch without padding."""
        return int(batch["attention_mask"].sum())

    def known_words(self, texts: Iterable[str]) -> IntArray:
        """Returns the number of tokens of each text (N,), neither unknown nor special ones."""
        encoder = self.encoder
        return known_words(encoder.tokenizer, texts, encoder.normalizer, encoder.max_length)

    def num_parameters(self) -> int:
        """Returns the number of parameters of encoder and head."""
        encoder = sum(parameter.numel() for parameter in self.encoder.model.parameters())
        return encoder + sum(values.size for values in self.head.values())

    def size_bytes(self) -> int:
        """Returns the size of the encoder's files and of the head."""
        head = sum(values.nbytes for values in self.head.values())
        return shipped_bytes(self.encoder.files.folder) + head

    def save(self, path: Path, model: str) -> None:
        """Writes the head to a safetensors file whose header identifies the encoder."""
        metadata = {
            "format": FEATURES_FORMAT,
            "name": self.name,
            "labels": json.dumps(self.labels, ensure_ascii=False),
            "model": model,
            "pooling": self.encoder.pooling,
            "max_length": str(self.encoder.max_length),
            "encoder": self.encoder.fingerprint,
        }
        with atomic_open(path, "wb") as file:
            file.write(with_sorted_metadata(safetensors.numpy.save(self.head, metadata)))

    @classmethod
    def load(cls, path: Path, device: str) -> "FrozenFeatures":
        """Loads a head and its encoder.

        Raises:
            WeightsError: The head is damaged, or its encoder is not available or has changed.
            UsageError: CUDA is requested but not available.
        """
        metadata = read_metadata(path)
        try:
            tensors = safetensors.numpy.load(path.read_bytes())
            head = {part: tensors[part] for part in ("coefficients", "intercepts")}
            name, labels = metadata["name"], tuple(json.loads(metadata["labels"]))
            model, pooling = metadata["model"], metadata["pooling"]
            max_tokens, fingerprint = int(metadata["max_length"]), metadata["encoder"]
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"{path} is truncated or damaged ({error})") from None
        device = resolve_device(device)
        try:
            files = fetch(model)
        except UsageError:
            raise WeightsError(
                f"{path} needs its encoder {model}, which no longer exists: restore the encoder, "
                "or train again"
            ) from None
        encoder = Encoder(files, pooling, max_tokens, device)
        if encoder.fingerprint != fingerprint:
            raise WeightsError(f"{path} belongs to another version of {model}: train again")
        classes, shape = len(labels), (len(labels), encoder.model.config.hidden_size)
        if head["coefficients"].shape != shape or head["intercepts"].shape != (classes,):
            raise WeightsError(f"{path} was altered since it was written: train again")
        return cls(name, labels, encoder, head)


def features(config: FeaturesConfig, model: str) -> tuple[Run, list[Evaluation]]:
    """Fits a logistic regression on the embeddings of one frozen encoder and writes a run.

    Args:
        config: Data, pooling and caches.
        model: Registry name, Hub id or folder.

    Returns:
        The run, and its evaluation and that of the most frequent class on the validation split.

    Raises:
        DataError: The data is not usable.
        UsageError: The run exists already, is finished and cannot be resumed, or is the run of the
            encoder.
        WeightsError: The encoder is not available.
    """
    dataset, findings = prepare_data(config)
    if len(set(dataset.train.labels.tolist())) < 2:
        raise DataError(f"all training texts of {dataset.name} have the same label: cannot fit")
    device = resolve_device(config.device)
    encoder = Encoder(fetch(model), config.pooling, config.max_length, device)
    name = config.name or f"{encoder.files.name}-{config.pooling}-{dataset.name}"
    if (config.output_dir / name).resolve() in encoder.files.folder.resolve().parents:
        raise UsageError(f"--name {name} is the run that --model names: choose another")
    with written_run(
        replace(config, name=name), dataset, name, lambda: first_records(config, dataset, findings)
    ) as run:
        embeddings = _embeddings(encoder, dataset, config)
        head = _fit(embeddings["train"], dataset.train, len(dataset.labels))
        classifier = FrozenFeatures(name, dataset.labels, encoder, head)
        baseline = MostFrequentClass(dataset.train, dataset.labels)
        evaluations = [
            evaluate(each, dataset.validation, dataset.name) for each in (classifier, baseline)
        ]
        write_evaluation(run, evaluations[0], dataset.validation.texts)
        is_folder = not (encoder.files.model or encoder.files.revision)
        source = str(encoder.files.folder.resolve()) if is_folder else model
        classifier.save(run.file(MODEL), source)  # marks the run as finished
        logger.info("finished: %s", run.final)
    draw_evaluation(run, evaluations[0])
    return run, evaluations


def _fit(embeddings: FloatArray, split: Split, num_labels: int) -> dict[str, FloatArray]:
    """Returns coefficients (C, H) and intercepts (C,); -1e4 for classes without training texts."""
    regression = LogisticRegression(max_iter=_MAX_ITER).fit(embeddings, split.labels)
    coefficients, intercepts = regression.coef_, regression.intercept_
    if len(regression.classes_) == 2:  # scikit-learn stores one row for both
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    head = {
        "coefficients": np.zeros((num_labels, embeddings.shape[1]), np.float32),
        "intercepts": np.full(num_labels, np.float32(-1e4)),
    }
    head["coefficients"][regression.classes_] = coefficients
    head["intercepts"][regression.classes_] = intercepts
    return head


def _embeddings(
    encoder: Encoder, dataset: Dataset, config: FeaturesConfig
) -> dict[str, FloatArray]:
    """Returns the embeddings (N, H) of each split, and saves them if requested."""
    embeddings = {
        split.name: encoder.embed_cached(split.texts, config.batch_size, config.cache_dir)
        for split in dataset.splits
    }
    if config.save_embeddings:
        arrays: dict[str, Any] = {f"{name}_embeddings": rows for name, rows in embeddings.items()}
        arrays |= {f"{split.name}_labels": split.labels for split in dataset.splits}
        with atomic_open(config.save_embeddings, "wb") as file:
            np.savez(file, label_names=np.array(dataset.labels), **arrays)
        logger.info("embeddings: %s", config.save_embeddings)
    return embeddings
