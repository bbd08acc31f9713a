"""The state of an interrupted training: one safetensors file, nothing pickled."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from featherweight.disk.atomic import atomic_open
from featherweight.errors import CheckpointError, WeightsError
from featherweight.training.optimizer_state import optimizer_tensors, restore_optimizer
from featherweight.weights import read_metadata, with_sorted_metadata
from lstm.classifier import content_sha256


@dataclass
class Progress:
    """The state of a training after a whole number of epochs.

    The states of random generators are not saved: every epoch seeds them from (seed, epoch).

    Attributes:
        history: One record per finished epoch.
        best_f1: Highest validation macro-F1 so far.
        best_weights: The weights with this score.
        scaler: State of the fp16 loss scaler.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    best_f1: float = -1.0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return len(self.history)

    @property
    def epochs_without_gain(self) -> int:
        """Number of epochs since the best one."""
        scores = [record["validation_macro_f1"] for record in self.history]
        return len(scores) - 1 - scores.index(max(scores)) if scores else 0

    def add(self, record: dict[str, Any], module: nn.Module, scaler: torch.amp.GradScaler) -> None:
        """Adds a finished epoch, and copies its weights if they are the best so far."""
        self.history.append(record)
        self.scaler = scaler.state_dict()
        if record["validation_macro_f1"] > self.best_f1:
            self.best_f1 = record["validation_macro_f1"]
            self.best_weights = {
                name: tensor.detach().clone() for name, tensor in module.state_dict().items()
            }


def save_checkpoint(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Writes weights, best weights, optimizer state and progress atomically."""
    tensors = {f"model.{name}": tensor for name, tensor in module.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in progress.best_weights.items()}
    state = optimizer_tensors(optimizer)
    tensors |= {f"optimizer.{name}": tensor for name, tensor in state.items()}
    metadata = {
        "history": json.dumps(progress.history),
        "best_f1": json.dumps(progress.best_f1),
        "scaler": json.dumps(progress.scaler),
    }
    # Cloned because safetensors rejects tensors that share memory.
    copies = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
    metadata["sha256"] = content_sha256(copies, metadata)
    with atomic_open(path, "wb") as file:
        file.write(with_sorted_metadata(safetensors.torch.save(copies, metadata)))


def load_checkpoint(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Restores the saved state of a module and its optimizer.

    Raises:
        CheckpointError: The file is damaged or belongs to another model.
    """
    try:
        metadata = read_metadata(path)
        tensors = safetensors.torch.load(path.read_bytes())
        sha256 = metadata.pop("sha256", None)  # which earlier versions did not write
        if sha256 not in (None, content_sha256(tensors, metadata)):
            raise ValueError("it was altered since it was written")
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            group, rest = name.split(".", 1)
            groups[group][rest] = tensor
        module.load_state_dict(groups["model"])
        restore_optimizer(optimizer, groups["optimizer"])
        return Progress(
            history=json.loads(metadata["history"]),
            best_f1=json.loads(metadata["best_f1"]),
            best_weights=groups["best"],
            scaler=json.loads(metadata["scaler"]),
        )
    except (WeightsError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(path, error) from None
