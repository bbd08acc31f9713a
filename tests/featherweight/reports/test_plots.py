import io

import numpy as np
import pytest
from matplotlib.image import imread

from featherweight.quality.evaluation import Evaluation
from featherweight.reports.plots import confusion_matrix, training_curves

LABELS = {
    "special characters": ("$5-$10", "😂 喜び", "x" * 200),
    "many": tuple(f"class {number}" for number in range(12)),
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.filterwarnings("ignore:Glyph", "ignore:constrained_layout")
def test_confusion_matrix_is_a_picture_with_any_labels(labels: tuple[str, ...]) -> None:
    probabilities = np.zeros((3, len(labels)))
    probabilities[[0, 1, 2], [0, 1, 1]] = 1
    evaluation = Evaluation("m", "d", "test", labels, np.array([0, 1, 2]), probabilities, 1, 2)
    assert imread(io.BytesIO(confusion_matrix(evaluation)), format="png").std() > 0.1


@pytest.mark.parametrize("epochs", [1, 3])
def test_training_curves_are_a_picture(epochs: int) -> None:
    record = {"train_loss": 1.5, "validation_loss": 1.2, "validation_accuracy": 0.5}
    history = [
        {**record, "validation_macro_f1": 0.4, "epoch": epoch + 1} for epoch in range(epochs)
    ]
    assert imread(io.BytesIO(training_curves(history)), format="png").shape == (432, 1080, 4)
