import io
import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

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


def many(count: int) -> Evaluation:
    labels = tuple(f"class {number} of a topic" for number in range(count))
    targets = np.arange(count)
    return Evaluation("a long name " * 30, "d", "test", labels, targets, np.eye(count), 1, 2)


@pytest.mark.parametrize("count", [12, 30, 77, 300])
def test_confusion_matrix_has_at_most_a_fixed_size(count: int) -> None:
    height, width, _ = imread(io.BytesIO(confusion_matrix(many(count))), format="png").shape
    assert max(height, width) <= 1_200


@pytest.mark.parametrize(
    ("count", "numbered", "named"), [(12, True, True), (13, False, True), (31, False, False)]
)
def test_confusion_matrix_has_numbers_and_names_where_there_is_room(
    monkeypatch: pytest.MonkeyPatch, count: int, numbered: bool, named: bool
) -> None:
    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure,
        "savefig",
        lambda figure, *options, **named: (figures.append(figure), save(figure, *options, **named)),
    )
    confusion_matrix(many(count))
    axes = figures[0].axes[0]
    assert len(axes.texts) == (count**2 if numbered else 0)
    assert len(axes.get_yticklabels()) == len(axes.get_xticklabels()) == (count if named else 0)
    note = "" if named else f"\n({count} classes, names not shown)"
    assert (axes.get_xlabel(), axes.get_ylabel()) == (f"predicted{note}", f"true{note}")
    figures[0].draw_without_rendering()
    rows = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert not any(one.overlaps(other) for one, other in itertools.pairwise(rows))
    width = figures[0].bbox.width
    (title,) = [text for text in figures[0].texts if "a long name" in text.get_text()]
    extent = Text.get_window_extent(title)
    assert extent.x0 >= 0 and extent.x1 <= width


@pytest.mark.parametrize("epochs", [1, 3])
def test_training_curves_are_a_picture(epochs: int) -> None:
    record = {"train_loss": 1.5, "validation_loss": 1.2, "validation_accuracy": 0.5}
    history = [
        {**record, "validation_macro_f1": 0.4, "epoch": epoch + 1} for epoch in range(epochs)
    ]
    assert imread(io.BytesIO(training_curves(history)), format="png").shape == (432, 1080, 4)
