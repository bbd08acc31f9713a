"""What every training is told and reports, be it of an LSTM or of a transformer."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from featherweight.classifier import FloatArray, IntArray
from featherweight.errors import UsageError

logger = logging.getLogger("featherweight")


@dataclass(frozen=True)
class TrainingConfig:
    """Training: AdamW, early stopping on validation macro-F1."""

    epochs: int = 6
    """Most passes over the training split."""
    min_steps: int = 400
    """Fewest steps an epoch has; a small training split is gone through several times for it."""
    batch_size: int = 32
    """Texts per step."""
    learning_rate: float = 3e-3
    """Highest step size of AdamW."""
    weight_decay: float = 0.01
    """Decoupled weight decay of AdamW."""
    schedule: Literal["linear", "cosine", "constant"] = "cosine"
    """Course of the learning rate after warm-up; linear and cosine end at zero."""
    warmup_ratio: float = 0.07
    """Share of all steps in which the learning rate climbs from zero."""
    max_grad_norm: float = 1.0
    """Norm to which gradients are clipped."""
    class_weights: Literal["none", "balanced"] = "none"
    """Weight classes in the loss by the inverse of their frequency."""
    label_smoothing: float = 0.05
    """Share of the target spread over all classes."""
    patience: int = 3
    """Epochs without a better validation macro-F1 after which training stops."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes CUDA if there is any."""
    seed: int = 0
    """Seed of initialization, order and dropout."""

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            UsageError: A number is out of its range; the message names the flag.
        """
        require_at_least_one(self, "epochs", "min_steps", "batch_size", "patience")
        require_fraction(self, "label_smoothing")
        if not 0 <= self.warmup_ratio <= 1:
            raise UsageError(f"--warmup_ratio must be in [0, 1], not {self.warmup_ratio}")
        require_positive(self, "max_grad_norm")
        if not 0 <= self.weight_decay < float("inf"):
            raise UsageError(f"--weight_decay must be 0 or above, not {self.weight_decay}")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"--seed must be in [0, 2**32), not {self.seed}")

    def passes_per_epoch(self, texts: int, batch_size: int) -> int:
        """Returns how often an epoch goes through a training split of so many texts.

        Once, unless the split is so small that a pass has fewer steps than `min_steps`.

        Args:
            texts: In the split.
            batch_size: Texts a step, those of every process together.
        """
        steps = -(-texts // batch_size)
        return -(-self.min_steps // steps)


@dataclass(frozen=True)
class OutputConfig:
    """Where the run goes."""

    output_dir: Path = Path("outputs")
    """Folder that holds the runs."""
    name: str = ""
    """Folder name of the run; empty: model, data and time."""
    overwrite: bool = False
    """Replace an existing run of that name."""
    resume: bool = False
    """Go on with a run that was cut off (same flags as then)."""

    def __post_init__(self) -> None:
        """Checks the name.

        Raises:
            UsageError: It is a path, or the flags exclude each other.
        """
        if Path(self.name).name != self.name or self.name == "..":
            raise UsageError(f"--name is one folder name, not a path: {self.name!r}")
        if self.overwrite and self.resume:
            raise UsageError("--overwrite and --resume exclude each other: give one of them")


def require_at_least_one(config: Any, *flags: str) -> None:
    """Refuses numbers below 1."""
    for flag in flags:
        if getattr(config, flag) < 1:
            raise UsageError(f"--{flag} must be at least 1, not {getattr(config, flag)}")


def require_positive(config: Any, *flags: str) -> None:
    """Refuses 0, what is below it, infinity and NaN."""
    for flag in flags:
        if not 0 < getattr(config, flag) < float("inf"):
            raise UsageError(f"--{flag} must be above 0, not {getattr(config, flag)}")


def require_fraction(config: Any, *flags: str) -> None:
    """Refuses numbers outside [0, 1)."""
    for flag in flags:
        if not 0 <= getattr(config, flag) < 1:
            raise UsageError(f"--{flag} must be in [0, 1), not {getattr(config, flag)}")


def class_weights(labels: IntArray, num_labels: int, config: TrainingConfig) -> FloatArray:
    """Returns the weight (C,) of each class in the loss.

    Ones, or N / (C * count); a class without texts never meets its weight.
    """
    if config.class_weights == "none":
        return np.ones(num_labels, np.float32)
    counts = np.bincount(labels, minlength=num_labels).clip(1)
    return (len(labels) / (num_labels * counts)).astype(np.float32)


def log_epoch(record: Mapping[str, Any], epochs: int) -> None:
    """Logs one line on a finished epoch."""
    logger.info(
        "epoch %d/%d  loss %.4f  validation loss %.4f  accuracy %.4f  macro-F1 %.4f  (%.1f s)",
        record["epoch"],
        epochs,
        record["train_loss"],
        record["validation_loss"],
        record["validation_accuracy"],
        record["validation_macro_f1"],
        record["seconds"],
    )
