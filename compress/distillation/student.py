"""What all students share: the loss of distillation, and flags of their data.

The loss is alpha · cross-entropy with the labels + (1 - alpha) · T² · KL(teacher ‖ student), with
the logits of both divided by the temperature T. Several teachers are averaged after the softmax.
Texts without a label have only the second term.

Source: Hinton et al. (2015), Distilling the Knowledge in a Neural Network.
"""

from dataclasses import asdict
from typing import Any

from torch import Tensor
from torch.nn import functional

from compress.config import CompressConfig, DistillConfig
from featherweight.run import CONFIG, Run
from featherweight.test import trained_on


def distillation_loss(
    logits: Tensor, soft: Tensor, label_loss: Tensor | None, config: DistillConfig
) -> Tensor:
    """Returns the loss () of a batch by the formula above.

    Args:
        logits: (B, C) of the student.
        soft: (B, C) mean probabilities of the teachers at the temperature.
        label_loss: () loss of the texts that have a label; None: there are none.
        config: Temperature and alpha.
    """
    log_probabilities = functional.log_softmax(logits / config.temperature, dim=1)
    divergence = functional.kl_div(log_probabilities, soft, reduction="batchmean")
    teacher_loss = (1 - config.alpha) * config.temperature**2 * divergence
    return teacher_loss if label_loss is None else config.alpha * label_loss + teacher_loss


def data_flags(origin: Run, config: CompressConfig) -> dict[str, Any]:
    """Returns the flags that any new student has: data, maximum length, seed and device."""
    return {
        **asdict(trained_on(origin)),
        "max_length": origin.read_json(CONFIG)["max_length"],
        "seed": config.seed,
        "device": config.device,
    }
