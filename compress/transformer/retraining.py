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
    flags = config.training_flags(rate) | {"device": classifier.device, "precision": precision}
    training, run = FinetuneConfig(**flags), Run(workspace)
    trainer = fit(network, classifier.tokenizer, dataset, training, run, callbacks=callbacks)
    return trainer.model.eval()
