"""Trains a transformer with the `transformers` Trainer and the loss and metric of the LSTM."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    TrainerCallback,
    TrainingArguments,
)

from featherweight.data.dataset import Dataset, Split
from featherweight.device import cpu_flags, resolve_device
from featherweight.errors import CheckpointError, UsageError, WeightsError
from featherweight.quality.evaluation import validation_scores
from featherweight.run import CHECKPOINTS, MODEL, Run
from featherweight.training.config import class_weights
from transformer_eval.classifier import NORMALIZER
from transformer_eval.config import FinetuneConfig
from transformer_eval.lora import WEIGHTS as ADAPTER_WEIGHTS
from transformer_eval.normalization import NORMALIZERS
from transformer_eval.safe_trainer import STATE, History, Loss, SafeTrainer

Rows = list[dict[str, Any]]  # per text: inputs of the network, its label, inputs of a loss

_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
_EVALUATION_BATCH = 64
_PROGRESS = "trainer_state.json"  # the last file of a checkpoint to be written
_CHECKPOINT_FILES = (STATE, "generators-0.safetensors", _PROGRESS)
_WEIGHTS = (MODEL, ADAPTER_WEIGHTS)  # the whole network, or only its adapters


class _Progress(NamedTuple):
    """State of an interrupted training; a resumed Trainer does not know that it stopped early."""

    checkpoint: Path | None = None
    epochs: int = 0
    stopped_early: bool = False


def fit(
    network: Any, tokenizer: Any, dataset: Dataset, config: FinetuneConfig, run: Run,
    rows: Rows | None = None, loss: Loss | None = None, callbacks: Sequence[TrainerCallback] = (),
) -> SafeTrainer:  # fmt: skip
    """Trains a network, restores the weights of its best epoch, and returns the trainer.

    Args:
        network: Has a classification head; it is trained in place.
        tokenizer: Its `model_max_length` is the maximum number of tokens of a text.
        dataset: Training split, and validation split to select the best epoch.
        config: Device and hyperparameters; the learning rate is above 0.
        run: Gets history and checkpoints; training resumes from an existing checkpoint.
        rows: Training data if it is not just the training split.
        loss: The loss to minimize; None: cross-entropy with the labels.
        callbacks: Additional callbacks of the Trainer.

    Raises:
        UsageError: The device does not support the precision.
        CheckpointError: A checkpoint is damaged.
    """
    rows = rows or tokenized_rows(dataset.train, tokenizer, network.config)
    weights = class_weights(dataset.train.labels, len(dataset.labels), config)
    progress = _progress(run)
    arguments = _arguments(config, run, progress)
    early_stopping = EarlyStoppingCallback(config.patience)
    trainer = SafeTrainer(
        class_weights=torch.from_numpy(weights),
        label_smoothing=config.label_smoothing,
        loss=loss,
        model=network,
        args=arguments,
        train_dataset=_repeated(rows, config, arguments),
        eval_dataset=tokenized_rows(dataset.validation, tokenizer, network.config),
        processing_class=tokenizer,
        compute_metrics=_scores,
        callbacks=[early_stopping, History(run, progress.epochs), *callbacks],
    )
    trainer.train(resume_from_checkpoint=progress.checkpoint)
    return trainer


def precision(config: FinetuneConfig, device: str) -> str:
    """Resolves "auto" to a 16-bit format if the device computes faster in it.

    Raises:
        UsageError: fp16 on the CPU.
    """
    if config.precision == "fp16" and device == "cpu":
        raise UsageError("--precision fp16 needs CUDA: use bf16, fp32 or auto on the CPU")
    if config.precision != "auto":
        return config.precision
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "bf16" if "avx512_bf16" in cpu_flags() or "amx_bf16" in cpu_flags() else "fp32"


def tokenized_rows(split: Split, tokenizer: Any, config: Any) -> Rows:
    """Tokenizes a split for a network with a config, without padding, which is added per batch."""
    normalize = NORMALIZERS.get(getattr(config, NORMALIZER, ""), str)
    encoded = tokenizer(
        [normalize(text) for text in split.texts],
        truncation=True,
        max_length=tokenizer.model_max_length,
    )
    columns = zip(*encoded.values(), strict=True)
    return [
        {**dict(zip(encoded, values, strict=True)), "labels": label}
        for values, label in zip(columns, split.labels.tolist(), strict=True)
    ]


def _repeated(rows: Rows, config: FinetuneConfig, arguments: TrainingArguments) -> Rows:
    """Returns the rows of an epoch: a small split occurs several times in it."""
    batch_size = arguments.train_batch_size * arguments.world_size
    texts_per_step = batch_size * config.gradient_accumulation_steps
    return rows * config.passes_per_epoch(len(rows), texts_per_step)


def _arguments(config: FinetuneConfig, run: Run, progress: _Progress) -> TrainingArguments:
    device = resolve_device(config.device)
    number_format = precision(config, device)
    return TrainingArguments(
        output_dir=str(run.file(CHECKPOINTS).resolve()),
        num_train_epochs=progress.epochs if progress.stopped_early else config.epochs,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=_EVALUATION_BATCH,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        lr_scheduler_type=_SCHEDULES[config.schedule],
        warmup_steps=config.warmup_ratio,
        max_grad_norm=config.max_grad_norm,
        train_sampling_strategy="group_by_length",
        bf16=number_format == "bf16",
        fp16=number_format == "fp16",
        use_cpu=device == "cpu",
        dataloader_pin_memory=device == "cuda",
        seed=config.seed,
        eval_strategy="epoch",
        logging_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,  # plus the best one
        load_best_model_at_end=True,
        metric_for_best_model="validation_macro_f1",
        restore_callback_states_from_checkpoint=True,
        remove_unused_columns=False,  # a loss may need columns that the network does not
        disable_tqdm=not sys.stderr.isatty(),
        report_to="none",
    )


def _scores(prediction: EvalPrediction) -> dict[str, float]:
    return validation_scores(np.asarray(prediction.label_ids), np.asarray(prediction.predictions))


def _newest_checkpoint(run: Run) -> Path | None:
    """Returns the last complete checkpoint; a kill may leave one with missing files."""
    complete = [
        folder
        for folder in run.file(CHECKPOINTS).glob("checkpoint-*")
        if all((folder / name).is_file() for name in _CHECKPOINT_FILES)
        and any((folder / name).is_file() for name in _WEIGHTS)
    ]
    return max(complete, key=lambda folder: int(folder.name.split("-")[1]), default=None)


def _progress(run: Run) -> _Progress:
    checkpoint = _newest_checkpoint(run)
    if checkpoint is None:
        return _Progress()
    try:
        state = Run(checkpoint).read_json(_PROGRESS)
        control = state["stateful_callbacks"]["TrainerControl"]["args"]
        return _Progress(checkpoint, round(state["epoch"]), control["should_training_stop"])
    except (WeightsError, KeyError) as error:
        raise CheckpointError(run.file(CHECKPOINTS), error) from None
