"""Training a transformer further: after pruning, through rounding, or on what teachers answer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from transformers import TrainerCallback

from compress.config import RetrainingConfig
from featherweight.data.dataset import Dataset
from featherweight.device import seed_everything
from featherweight.run import Run
from transformer_eval.classifier import TransformerClassifier
from transformer_eval.config import FinetuneConfig
from transformer_eval.fit import Rows, fit
from transformer_eval.safe_trainer import Loss

RATE = 5e-5  # of what is near its end already


def retrain(
    classifier: TransformerClassifier,
    network: Any,
    config: RetrainingConfig,
    dataset: Dataset,
    workspace: Path,
    rows: Rows | None = None,
    loss: Loss | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    rate: float = RATE,
    precision: Literal["auto", "fp32"] = "auto",
) -> Any:
    """Trains a network further and returns it with the weights of its best epoch.

    Args:
        classifier: The trained transformer, whose tokenizer and device are used.
        network: What is trained: a copy of its model, changed by the method.
        config: Numbers of the training.
        dataset: What is learned from and chosen on.
        workspace: Folder that keeps the state of a training that is cut off.
        rows: What is learned from, where it is more than the training split.
        loss: What is made small; None: cross-entropy with the labels.
        callbacks: Called in the course of it.
        rate: Highest step size, where the flags leave it to the method.
        precision: What it computes in; "auto": 16 bits where the device is faster in them.
    """
    seed_everything(config.seed)
    training = FinetuneConfig(
        epochs=config.retraining_epochs,
        patience=config.retraining_epochs,
        learning_rate=config.retraining_rate or rate,
        seed=config.seed,
        precision=precision,
    )
    trainer = fit(
        network, classifier.tokenizer, dataset, training, Run(workspace), classifier.device,
        rows, loss, callbacks,
    )  # fmt: skip
    return trainer.model.eval()
