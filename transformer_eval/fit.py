"""Trains a transformer with the `transformers` Trainer and the loss and metric of the LSTM."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    EvalPrediction,
    TrainerCallback,
    TrainingArguments,
)

from featherweight.data.dataset import Dataset, Split
from featherweight.device import cpu_flags
from featherweight.errors import CheckpointError, UsageError, WeightsError
from featherweight.quality.evaluation import validation_scores
from featherweight.run import CHECKPOINTS, MODEL, Run
from featherweight.training.config import class_weights
from transformer_eval.classifier import NORMALIZER
from transformer_eval.config import FinetuneConfig
from transformer_eval.lora import WEIGHTS as ADAPTER_WEIGHTS
from transformer_eval.normalization import NORMALIZERS
from transformer_eval.safe_trainer import STATE, History, Loss, SafeTrainer, show_only_progress

Rows = list[dict[str, Any]]  # per text: inputs of the network, its label, inputs of a loss

_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
_EVALUATION_BATCH = 64
_PROGRESS = "trainer_state.json"  # the last file of a checkpoint to be written
_CHECKPOINT_FILES = (STATE, "generators-0.safetensors", _PROGRESS)
_WEIGHTS = (MODEL, ADAPTER_WEIGHTS)  # the whole network, or only its adapters


def fit(
    network: Any,
    tokenizer: Any,
    dataset: Dataset,
    config: FinetuneConfig,
    run: Run,
    device: str,
    rows: Rows | None = None,
    loss: Loss | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> SafeTrainer:
    """Trains a network and restores the weights of its best epoch.

    Every epoch writes a checkpoint to the run; training resumes from an existing checkpoint.

    Args:
        network: Has a classification head; it is trained in place.
        tokenizer: Its `model_max_length` is the maximum number of tokens of a text.
        dataset: Training split, and validation split to select the best epoch.
        config: Hyperparameters; the learning rate is above 0.
        run: Where history and checkpoints are written.
        device: "cpu" or "cuda".
        rows: Training data if it is not just the training split.
        loss: The loss to minimize; None: cross-entropy with the labels.
        callbacks: Additional callbacks of the Trainer.

    Returns:
        The trainer, after training.

    Raises:
        UsageError: The device does not support the precision.
        CheckpointError: A checkpoint is damaged.
    """
    normalizer = getattr(network.config, NORMALIZER, None)
    if rows is None:
        rows = tokenized_rows(dataset.train, tokenizer, normalizer)
    weights = class_weights(dataset.train.labels, len(dataset.labels), config)
    arguments = _arguments(config, run, device)
    texts_per_step = arguments.train_batch_size * arguments.world_size
    texts_per_step *= config.gradient_accumulation_steps
    trainer = SafeTrainer(
        class_weights=torch.from_numpy(weights),
        label_smoothing=config.label_smoothing,
        loss=loss,
        model=network,
        args=arguments,
        train_dataset=rows * config.passes_per_epoch(len(rows), texts_per_step),
        eval_dataset=tokenized_rows(dataset.validation, tokenizer, normalizer),
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=_scores,
        callbacks=[
            EarlyStoppingCallback(config.patience),
            History(run, _finished_epochs(run)),
            *callbacks,
        ],
    )
    show_only_progress(trainer)
    trainer.train(resume_from_checkpoint=_newest_checkpoint(run))
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


def tokenized_rows(split: Split, tokenizer: Any, normalizer: str | None) -> Rows:
    """Tokenizes a split without padding, which is added per batch."""
    normalize = NORMALIZERS.get(normalizer or "", str)
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


def _arguments(config: FinetuneConfig, run: Run, device: str) -> TrainingArguments:
    number_format = precision(config, device)
    return TrainingArguments(
        output_dir=str(run.file(CHECKPOINTS).resolve()),
        num_train_epochs=_finished_epochs(run) if _stopped_early(run) else config.epochs,
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


def _progress(run: Run) -> dict[str, Any]:
    """Returns the trainer state of the last checkpoint, or an empty dict."""
    checkpoint = _newest_checkpoint(run)
    try:
        return Run(checkpoint).read_json(_PROGRESS) if checkpoint else {}
    except WeightsError as error:
        raise CheckpointError(run.file(CHECKPOINTS), error) from None


def _finished_epochs(run: Run) -> int:
    return round(_progress(run).get("epoch", 0))


def _stopped_early(run: Run) -> bool:
    """Returns whether training stopped early, which a resumed Trainer would not know."""
    callbacks = _progress(run).get("stateful_callbacks", {})
    return bool(callbacks) and callbacks["TrainerControl"]["args"]["should_training_stop"]
