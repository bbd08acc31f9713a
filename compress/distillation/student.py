"""What learns from teachers, and the loss that it learns by.

The loss is alpha · cross-entropy with the labels + (1 - alpha) · T² · KL(teacher ‖ student), both
softened by the temperature T; several teachers count as the mean of their softened probabilities.
Texts without a label have the second part only.

Source: Hinton et al. (2015), Distilling the Knowledge in a Neural Network.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor
from torch.nn import functional

from compress.config import CompressConfig, DistillConfig
from compress.distillation.teachers import DistillationData
from compress.method import Variant
from featherweight.data.dataset import Dataset
from featherweight.run import CONFIG, Run
from featherweight.test import trained_on


class Student(Protocol):
    """What learns."""

    @property
    def sha256(self) -> str:
        """Hex digest of what it knows before the training, beside what the flags say."""
        ...

    @property
    def run_config(self) -> Mapping[str, Any]:
        """What `config.json` of its run says: its kind, its data, the flags of its training."""
        ...

    def learn(
        self, name: str, lesson: DistillationData, dataset: Dataset, config: DistillConfig,
        workspace: Path, device: str,
    ) -> Variant:  # fmt: skip
        """Trains a new network, or goes on with one that was cut off.

        Args:
            name: What tables call it.
            lesson: What it learns from.
            dataset: Its validation split chooses the best epoch.
            config: Temperature and alpha.
            workspace: Folder that keeps the state of the training.
            device: "cpu" or "cuda".
        """
        ...


def distillation_loss(
    logits: Tensor, soft: Tensor, from_labels: Tensor | None, config: DistillConfig
) -> Tensor:
    """Returns the loss () of a batch by the formula above.

    Args:
        logits: (B, C) of the student.
        soft: (B, C) mean probabilities of the teachers at the temperature.
        from_labels: () loss of those that have a label; None: none has.
        config: Temperature and alpha.
    """
    student = functional.log_softmax(logits / config.temperature, dim=1)
    taught = functional.kl_div(student, soft, reduction="batchmean")
    from_teachers = (1 - config.alpha) * config.temperature**2 * taught
    return from_teachers if from_labels is None else config.alpha * from_labels + from_teachers


def flags_of_data(origin: Run, config: CompressConfig) -> dict[str, Any]:
    """Returns the flags that any student has from the run and the command.

    Those are the run's data and the length at which its texts are cut, seed and device.
    """
    return {
        **asdict(trained_on(origin)),
        "max_length": origin.read_json(CONFIG)["max_length"],
        "seed": config.seed,
        "device": config.device,
    }
