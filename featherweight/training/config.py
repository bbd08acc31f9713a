"""Options shared by all trainings, and the log line of an epoch."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np

from featherweight.classifier import FloatArray, IntArray
from featherweight.errors import UsageError, quoted, require_range

logger = logging.getLogger("featherweight")


@dataclass(frozen=True)
class TrainingConfig:
    """Training: AdamW, early stopping on validation macro-F1."""

    epochs: int = 6
    """Maximum number of epochs."""
    min_steps: int = 400
    """Minimum number of steps per epoch; a small training split is repeated to reach it."""
    batch_size: int = 32
    """Number of texts per step."""
    learning_rate: float = 3e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.01
    """Weight decay of AdamW."""
    schedule: Literal["linear", "cosine", "constant"] = "cosine"
    """Learning rate schedule after warm-up; linear and cosine decay to zero."""
    warmup_ratio: float = 0.07
    """Share of steps for linear warm-up of the learning rate."""
    max_grad_norm: float = 1.0
    """Maximum gradient norm; larger gradients are clipped."""
    class_weights: Literal["none", "balanced"] = "none"
    """Class weights in the loss; balanced: inverse to the class frequency."""
    label_smoothing: float = 0.05
    """Label smoothing: share of each target that is spread over all classes."""
    patience: int = 3
    """Stop after this many epochs without a better validation macro-F1."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to train on; auto uses CUDA if available."""
    seed: int = 0
    """Random seed of initialization, batch order and dropout."""

    def __post_init__(self) -> None:
        require_range(self, "at least 1", "epochs", "min_steps", "batch_size", "patience")
        require_range(self, "in [0, 1)", "label_smoothing")
        require_range(self, "in [0, 1]", "warmup_ratio")
        require_range(self, "above 0", "max_grad_norm")
        require_range(self, "0 or above", "weight_decay")
        require_range(self, "in [0, 2**32)", "seed")

    def passes_per_epoch(self, texts: int, batch_size: int) -> int:
        """Returns the number of passes over the training split in one epoch.

        It is 1 unless the split is so small that one pass has fewer steps than `min_steps`.

        Args:
            texts: Number of texts in the split.
            batch_size: Texts per step, of all processes together.
        """
        steps = -(-texts // batch_size)
        return -(-self.min_steps // steps)


@dataclass(frozen=True)
class OutputConfig:
    """Run directory."""

    kind: ClassVar[str]  # of model, see `featherweight.run.kind`
    # Values of flags in runs from before the flags existed. Without a type: it is not a field.
    before = MappingProxyType[str, Any]({})

    output_dir: Path = Path("outputs")
    """Folder for all runs."""
    name: str = ""
    """Name of the run, used as its folder name; default: model, data and time."""
    overwrite: bool = False
    """Replace an existing run with this name."""
    resume: bool = False
    """Resume an interrupted run; all other flags must be the same."""

    def __post_init__(self) -> None:
        plain = self.name.isprintable() and self.name[:1] not in (".", "-", " ")
        if not plain or Path(self.name).name != self.name or "\\" in self.name:
            raise UsageError(
                f"--name must be a folder name and start with a letter or digit: "
                f"{quoted(self.name)}"
            )
        if self.overwrite and self.resume:
            raise UsageError("--overwrite and --resume exclude each other: give only one")


def class_weights(labels: IntArray, num_labels: int, config: TrainingConfig) -> FloatArray:
    """Returns the weight (C,) of each class in the loss: 1, or N / (C * count) if balanced."""
    if config.class_weights == "none":
        return np.ones(num_labels, np.float32)
    counts = np.bincount(labels, minlength=num_labels).clip(1)
    return (len(labels) / (num_labels * counts)).astype(np.float32)


def log_epoch(record: Mapping[str, Any], epochs: int) -> None:
    """Logs one line about a finished epoch."""
    logger.info(
        "epoch %(epoch)d/%(epochs)d  loss %(train_loss).4f  validation loss "
        "%(validation_loss).4f  accuracy %(validation_accuracy).4f  macro-F1 "
        "%(validation_macro_f1).4f  (%(seconds).1f s)",
        {**record, "epochs": epochs},
    )
