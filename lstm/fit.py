"""The training loop: AdamW, warm-up and decay, early stopping, checkpoints."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from featherweight.classifier import IntArray, batches_by_length
from featherweight.device import seed_everything
from featherweight.errors import UsageError
from featherweight.quality.evaluation import validation_scores
from featherweight.training.config import class_weights, log_epoch
from lstm.batching import pad, shuffled_batches
from lstm.checkpoint import Progress, load_checkpoint, save_checkpoint
from lstm.config import OptimizationConfig
from lstm.encoder import LSTMClassifier
from lstm.projection import Projection, projected
from lstm.vectors.embedding import VectorEmbedding

logger = logging.getLogger("featherweight")

_AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16}
_EVALUATION_BATCH = 256

Loss = Callable[[Tensor, list[int]], Tensor]  # logits (B, C), their B row numbers -> loss ()
AfterEpoch = Callable[[Mapping[str, Any], int], None]  # record of an epoch, maximum epochs


@dataclass(frozen=True)
class EncodedSplit:
    """N texts as token ids."""

    ids: Sequence[Sequence[int]]  # of each text, at least one
    labels: IntArray  # (N,) int64 class ids


@dataclass(frozen=True)
class _Training:
    """Everything that stays the same in all epochs of a training."""

    module: LSTMClassifier
    train: EncodedSplit
    validation: EncodedSplit
    config: OptimizationConfig
    device: str
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    loss: Loss
    projection: Projection | None


def fit(
    module: LSTMClassifier,
    train: EncodedSplit,
    validation: EncodedSplit,
    config: OptimizationConfig,
    device: str,
    checkpoint: Path,
    loss: Loss | None = None,
    projection: Projection | None = None,
    after_epoch: AfterEpoch = log_epoch,
) -> Progress:
    """Trains a module; it ends up with the weights of its best epoch.

    Saves a checkpoint after every epoch. If `checkpoint` exists at the start, training resumes
    from it and ends with exactly the weights of an uninterrupted training.

    Args:
        module: The network, randomly initialized or pretrained.
        train: The training split.
        validation: The split that selects the best epoch.
        config: Hyperparameters.
        device: "cpu" or "cuda".
        checkpoint: Path of the checkpoint file.
        loss: The loss to minimize; None: cross-entropy with the labels.
        projection: Applied for each forward pass, but not to the final weights.
        after_epoch: Called with the record of each epoch; an exception ends the training.

    Returns:
        The history, one record per epoch, and the best weights.

    Raises:
        UsageError: The device does not support the precision.
        WeightsError: The checkpoint is damaged.
    """
    check_precision(config, device)
    module.to(device)
    loss = loss or cross_entropy(train.labels, module.head.out_features, config, device)
    optimizer = _optimizer(module, config)
    scaler = torch.amp.GradScaler(device, enabled=config.precision == "fp16")
    training = _Training(
        module, train, validation, config, device, optimizer, scaler, loss, projection
    )
    progress = Progress()
    if checkpoint.exists():
        progress = load_checkpoint(checkpoint, module, optimizer)
        scaler.load_state_dict(progress.scaler)
        logger.info("resuming after epoch %d", progress.epoch)

    with _progress_bar(config, len(train.ids), progress.epoch) as bar, logging_redirect_tqdm():
        while progress.epoch < config.epochs and progress.epochs_without_gain < config.patience:
            record = _run_epoch(training, progress.epoch, bar)
            progress.add(record, module, scaler)
            save_checkpoint(checkpoint, module, optimizer, progress)
            after_epoch(record, config.epochs)
    module.load_state_dict(progress.best_weights)
    return progress


def _optimizer(module: LSTMClassifier, config: OptimizationConfig) -> torch.optim.AdamW:
    """Returns AdamW, without weight decay for the projection of word vectors."""
    decayed = dict(module.named_parameters())
    groups: list[dict[str, Any]] = []
    if isinstance(module.embedding, VectorEmbedding):
        groups = [{"params": [decayed.pop("embedding.projection")], "weight_decay": 0.0}]
    groups.insert(0, {"params": list(decayed.values())})
    return torch.optim.AdamW(
        groups, config.learning_rate, weight_decay=config.weight_decay, fused=True
    )


def _progress_bar(config: OptimizationConfig, texts: int, finished_epochs: int) -> tqdm:
    passes = config.passes_per_epoch(texts, config.batch_size)
    steps_per_epoch = passes * math.ceil(texts / config.batch_size)
    return tqdm(
        total=config.epochs * steps_per_epoch,
        initial=finished_epochs * steps_per_epoch,
        unit="batch",
        desc="training",
        disable=None,  # shown on a terminal only
    )


def _run_epoch(training: _Training, epoch: int, bar: tqdm) -> dict[str, Any]:
    """Trains and validates one epoch, counted from 0, and returns its record."""
    train, config = training.train, training.config
    started = time.perf_counter()
    mean_loss = _train_epoch(training, epoch, bar)
    seconds = time.perf_counter() - started
    with projected(training.module, training.projection):
        scores = _validate(training.module, training.validation, training.device)
    bar.set_postfix(loss=f"{mean_loss:.3f}", macro_f1=f"{scores['validation_macro_f1']:.3f}")
    passes = config.passes_per_epoch(len(train.ids), config.batch_size)
    return {
        "epoch": epoch + 1,
        "train_loss": mean_loss,
        **scores,
        "learning_rate": training.optimizer.param_groups[0]["lr"],
        "seconds": seconds,
        "texts_per_second": passes * len(train.ids) / seconds,
    }


def check_precision(config: OptimizationConfig, device: str) -> None:
    """Checks that the device supports the precision.

    Raises:
        UsageError: fp16 or bf16 on the CPU.
    """
    if config.precision != "fp32" and device != "cuda":
        raise UsageError(f"--precision {config.precision} requires CUDA: use fp32 on the CPU")


def _train_epoch(training: _Training, epoch: int, bar: tqdm) -> float:
    """Takes the optimizer steps of one epoch, counted from 0, and returns the mean loss."""
    module, train, config = training.module, training.train, training.config
    optimizer, scaler = training.optimizer, training.scaler
    seed_everything(_epoch_seed(config.seed, epoch))
    module.train()
    dtype = _AUTOCAST.get(config.precision)
    batches = list(_batches(train, config, epoch))
    total_steps = config.epochs * len(batches)
    losses = []
    for step, rows in enumerate(batches, start=epoch * len(batches)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, total_steps, config)
        batch = pad([train.ids[row] for row in rows]).to(training.device)
        optimizer.zero_grad(set_to_none=True)
        with projected(module, training.projection):
            with torch.autocast(training.device, dtype=dtype, enabled=dtype is not None):
                loss = training.loss(module(batch.input_ids, batch.lengths), rows)
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(optimizer)
        clip_grad_norm_(module.parameters(), config.max_grad_norm)
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.detach())
        bar.update()
    return torch.stack(losses).mean().item()


def cross_entropy(
    labels: IntArray, num_labels: int, config: OptimizationConfig, device: str
) -> Loss:
    """Returns the cross-entropy loss with class weights and label smoothing.

    Args:
        labels: (N,) class ids of all training texts.
        num_labels: C, number of classes.
        config: Class weights and label smoothing.
        device: "cpu" or "cuda".
    """
    weights = class_weights(labels, num_labels, config)
    function = nn.CrossEntropyLoss(
        weight=torch.from_numpy(weights).to(device), label_smoothing=config.label_smoothing
    )
    targets = torch.from_numpy(labels).to(device)
    return lambda logits, rows: function(logits, targets[rows])


def learning_rate_at(step: int, total_steps: int, config: OptimizationConfig) -> float:
    """Returns the learning rate of a step, counted from 0.

    Source: Loshchilov & Hutter (2017), SGDR, equation 5 (cosine without restarts).
    """
    warmup_steps = round(config.warmup_ratio * total_steps)
    if step < warmup_steps:
        return config.learning_rate * (step + 1) / warmup_steps
    remaining = 1 - (step - warmup_steps) / max(1, total_steps - warmup_steps)
    if config.schedule == "linear":
        return config.learning_rate * remaining
    if config.schedule == "cosine":
        return config.learning_rate * (1 - math.cos(math.pi * remaining)) / 2
    return config.learning_rate


def _epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


def _batches(train: EncodedSplit, config: OptimizationConfig, epoch: int) -> Iterator[list[int]]:
    """Yields the row numbers of each batch of an epoch, which may have several passes."""
    lengths = [len(ids) for ids in train.ids]
    for index in range(config.passes_per_epoch(len(train.ids), config.batch_size)):
        yield from shuffled_batches(lengths, config.batch_size, (config.seed, epoch, index))


@torch.no_grad()
def _validate(module: LSTMClassifier, split: EncodedSplit, device: str) -> dict[str, float]:
    """Returns cross-entropy (without smoothing), accuracy and macro-F1 on a split."""
    module.eval()
    logits = np.zeros((len(split.ids), module.head.out_features), dtype=np.float32)
    for rows in batches_by_length([len(ids) for ids in split.ids], _EVALUATION_BATCH):
        batch = pad([split.ids[row] for row in rows]).to(device)
        logits[rows] = module(batch.input_ids, batch.lengths).float().cpu().numpy()
    return validation_scores(split.labels, logits)
