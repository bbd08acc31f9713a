"""Further training of a transformer: after pruning, with rounded weights, or of adapters."""

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
from transformer_eval.fit import fit

_RATE = 5e-5  # small, since the model is trained already


def retrain(
    classifier: TransformerClassifier,
    network: Any,
    config: RetrainingConfig,
    dataset: Dataset,
    workspace: Path,
    callbacks: Sequence[TrainerCallback] = (),
    rate: float = _RATE,
    precision: Literal["auto", "fp32"] = "auto",
) -> Any:
    """Trains a network further and returns it with the weights of its best epoch.

    Args:
        classifier: The trained transformer, for its tokenizer and device.
        network: The network to train: a copy of its model, changed by the method.
        config: Options of the training.
        dataset: Its training split, and the validation split that selects the epoch.
        workspace: Folder for the state of an interrupted training.
        callbacks: Called during the training.
        rate: Peak learning rate unless the flags give one.
        precision: Format to compute in; "auto": 16 bits if the device is faster in them.
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
        callbacks=callbacks,
    )  # fmt: skip
    return trainer.model.eval()
