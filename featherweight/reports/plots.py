"""Pictures of one run as PNG bytes, and what all pictures share."""

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from featherweight.quality.evaluation import Evaluation
from featherweight.reports.classes import MAX_CLASSES
from featherweight.reports.terminal import printable

DPI = 120
_MAX_SIDE = 9.0  # inches, of a confusion matrix
_MAX_COUNTED = 12  # with more classes, a cell has no room for its count
# Source: Okabe & Ito (2008), Color Universal Design; without black, and yellow moved to the end.
PALETTE = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#F0E442",
)  # fmt: skip


def training_curves(history: Sequence[dict[str, Any]]) -> bytes:
    """Returns a PNG of the losses and of validation accuracy and macro-F1 over the epochs."""
    epochs = [record["epoch"] for record in history]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    losses, quality = figure.subplots(1, 2)
    for axes, curves in (
        (losses, {"train_loss": "training", "validation_loss": "validation"}),
        (quality, {"validation_accuracy": "accuracy", "validation_macro_f1": "macro-F1"}),
    ):
        for key, label in curves.items():
            axes.plot(epochs, [record[key] for record in history], "o-", label=label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)  # a single epoch has no range of its own
        axes.grid(alpha=0.3)
        axes.legend()
    losses.set(xlabel="epoch", ylabel="cross-entropy")
    quality.set(xlabel="epoch", ylabel="validation")
    return png(figure)


def confusion_matrix(evaluation: Evaluation) -> bytes:
    """Returns a PNG of the confusion matrix, colored by the share of each true class."""
    counts, labels = evaluation.confusion, evaluation.labels
    side = min(max(4.0, 0.75 * len(labels) + 1.8), _MAX_SIDE)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    image = draw_confusion(axes, counts, counted=len(labels) <= _MAX_COUNTED)
    name_classes(axes, labels)
    letters = int(8 * side)  # that fit above it
    data = f"{short(evaluation.data, letters - 24)}, {evaluation.split}, n = {counts.sum()}"
    figure.suptitle(literal(f"{short(evaluation.model, letters)}\n{data}"), fontsize="medium")
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    return png(figure)


def draw_confusion(axes: Axes, counts: npt.NDArray[Any], counted: bool) -> AxesImage:
    """Draws a confusion matrix.

    Args:
        axes: The axes to draw into.
        counts: (C, C), rows true and columns predicted.
        counted: Whether to write the counts into the cells.
    """
    shares = counts / counts.sum(axis=1, keepdims=True).clip(1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares) if counted else ():
        color = "white" if share > 0.5 else "black"
        count = f"{counts[row, column]:.0f}"
        axes.text(column, row, count, ha="center", va="center", color=color)
    return image


def name_classes(
    axes: Axes, labels: Sequence[str], max_named: int = MAX_CLASSES, max_letters: int = 24
) -> None:
    """Names the rows and columns of a confusion matrix, or their number if there are too many."""
    shown = [literal(short(label, max_letters)) for label in labels]
    note = ""
    if len(labels) > max_named:
        shown, note = [], f"\n({len(labels)} classes, names not shown)"
    axes.set_xticks(range(len(shown)), shown, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(shown)), shown)
    axes.set(xlabel=f"predicted{note}", ylabel=f"true{note}")


def short(text: str, limit: int) -> str:
    """Returns a text on one line, cut to a maximum number of letters."""
    text = printable(text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def literal(text: str) -> str:
    """Escapes dollar signs, between which matplotlib would read a formula."""
    return text.replace("$", r"\$")


def png(figure: Figure) -> bytes:
    """Renders a figure."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Labels may be in any script; the font draws a box for a letter that it lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()
