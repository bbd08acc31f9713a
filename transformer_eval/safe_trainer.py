"""A `transformers` Trainer with a custom loss, a history, and checkpoints without pickle."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch.nn import functional
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback
from transformers.trainer import TRAINING_ARGS_NAME

from featherweight.disk.atomic import atomic_open
from featherweight.errors import CheckpointError, WeightsError
from featherweight.run import Run
from featherweight.training.config import log_epoch
from featherweight.training.optimizer_state import optimizer_tensors, restore_optimizer
from featherweight.weights import read_metadata, with_sorted_metadata

STATE = "state.safetensors"
HISTORY = "history.jsonl"

Loss = Callable[[torch.Tensor, Mapping[str, torch.Tensor]], torch.Tensor]  # logits, batch -> ()


class SafeTrainer(Trainer):
    """A Trainer with class weights or a custom loss; its checkpoints are tensors and JSON.

    The base class pickles the state of the optimizer, schedule and random generators.
    """

    # `compute_loss` returns the mean of a batch; the Trainer divides by the accumulated batches.
    loss_is_scaled_for_ga = False

    def __init__(
        self, *, class_weights: torch.Tensor, label_smoothing: float, loss: Loss | None = None,
        **arguments: Any,
    ) -> None:  # fmt: skip
        super().__init__(**arguments)
        # Nothing is printed to stdout; the progress bar is shown unless disabled.
        if self.args.disable_tqdm:
            self.remove_callback(PrinterCallback)
        else:
            self.remove_callback(ProgressCallback)
            self.add_callback(_ProgressBar())
        self._loss = loss or self.cross_entropy
        self._class_weights = class_weights.to(self.args.device)
        self._label_smoothing = label_smoothing
        self._network_inputs = set(self.processing_class.model_input_names)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Returns the loss of a batch; on validation it is always the cross-entropy."""
        outputs = model(**{name: inputs[name] for name in inputs.keys() & self._network_inputs})
        function = self._loss if model.training else self.cross_entropy
        loss = function(outputs.logits.float(), inputs)
        return (loss, outputs) if return_outputs else loss

    def cross_entropy(
        self, logits: torch.Tensor, inputs: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """Returns the cross-entropy of a batch, computed as for the LSTM."""
        return functional.cross_entropy(
            logits,
            inputs["labels"],
            weight=self._class_weights,
            label_smoothing=self._label_smoothing,
        )

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        # The arguments are pickled; the run has them as JSON.
        Path(output_dir or self.args.output_dir, TRAINING_ARGS_NAME).unlink(missing_ok=True)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.args.should_save:
            return
        tensors = {
            name: tensor.detach().cpu().clone()
            for name, tensor in optimizer_tensors(self.optimizer).items()
        }
        schedule = self.lr_scheduler.state_dict()
        metadata = {
            "schedule": json.dumps({name: schedule[name] for name in ("last_epoch", "_last_lr")}),
            "scaler": json.dumps(self._scaler.state_dict() if self._scaler else {}),
        }
        with atomic_open(Path(output_dir) / STATE, "wb") as file:
            file.write(with_sorted_metadata(safetensors.torch.save(tensors, metadata)))

    def _load_from_checkpoint(self, checkpoint: str, model: Any = None) -> None:
        try:
            super()._load_from_checkpoint(checkpoint, model)
        except (SafetensorError, ValueError, RuntimeError) as error:
            raise CheckpointError(Path(checkpoint), error) from None

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        path = Path(checkpoint) / STATE
        try:
            metadata = read_metadata(path)
            restore_optimizer(self.optimizer, safetensors.torch.load(path.read_bytes()))
            schedule = json.loads(metadata["schedule"])
            self.lr_scheduler.load_state_dict({**self.lr_scheduler.state_dict(), **schedule})
            for group, rate in zip(self.optimizer.param_groups, schedule["_last_lr"], strict=True):
                group["lr"] = rate
            if self._scaler:
                self._scaler.load_state_dict(json.loads(metadata["scaler"]))
        except (WeightsError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(path, error) from None

    def _save_rng_state(self, output_dir: str) -> None:
        states = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            states["cuda"] = torch.cuda.get_rng_state()
        Path(output_dir).mkdir(exist_ok=True)  # another process may create it first
        with atomic_open(self._generators(output_dir), "wb") as file:
            file.write(safetensors.torch.save(states))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        path = self._generators(checkpoint)
        try:
            states = safetensors.torch.load(path.read_bytes())
            torch.set_rng_state(states["cpu"])
            if "cuda" in states and torch.cuda.is_available():
                torch.cuda.set_rng_state(states["cuda"])
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            raise CheckpointError(path, error) from None

    def _save_scaler(self, output_dir: str) -> None:
        """Does nothing: `_save_optimizer_and_scheduler` saves the scaler."""

    def _load_scaler(self, checkpoint: str | None) -> None:
        """Does nothing: `_load_optimizer_and_scheduler` loads the scaler."""

    @property
    def _scaler(self) -> Any:
        return getattr(self.accelerator, "scaler", None)

    def _generators(self, folder: str) -> Path:
        return Path(folder) / f"generators-{self.args.process_index}.safetensors"


class History(TrainerCallback):
    """Writes one record per epoch, in the format of the LSTM's history.

    Attributes:
        records: One per finished epoch.
    """

    def __init__(self, run: Run, finished_epochs: int) -> None:
        self._run = run
        self._started = 0.0
        self.records: list[dict[str, Any]] = []
        if finished_epochs:
            self.records = read_history(run)[:finished_epochs]

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Starts the timer."""
        self._started = time.perf_counter()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stops the timer, before validation."""
        self._seconds = time.perf_counter() - self._started

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any, train_dataloader: Any, **_: Any
    ) -> None:
        """Appends the record of the epoch that has just ended."""
        log = next(entry for entry in reversed(state.log_history) if "loss" in entry)
        record = {
            "epoch": round(state.epoch),
            "train_loss": log["loss"],
            **{name: metrics[f"eval_{name}"] for name in (
                "validation_loss", "validation_accuracy", "validation_macro_f1",
            )},
            "learning_rate": log["learning_rate"],
            "seconds": self._seconds,
            "texts_per_second": len(train_dataloader.dataset) / self._seconds,
        }  # fmt: skip
        self.records.append(record)
        if state.is_world_process_zero:
            lines = [json.dumps(record) + "\n" for record in self.records]
            self._run.write_text(HISTORY, "".join(lines))
            log_epoch(record, int(state.num_train_epochs))


def read_history(run: Run) -> list[dict[str, Any]]:
    """Returns the records of a run's epochs."""
    lines = run.file(HISTORY).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


class _ProgressBar(ProgressCallback):
    """The Trainer's progress bar without the metrics that it prints to stdout."""

    def on_log(self, *_: Any, **__: Any) -> None:
        """Prints nothing."""
