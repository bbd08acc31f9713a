"""Pictures, as PNG bytes: of a training, of an evaluation, and of a comparison's JSON record."""

import io
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from featherweight.comparison.text import three_digits
from featherweight.quality.evaluation import Evaluation
from featherweight.reports.label_placement import place_labels

Row = Mapping[str, Any]

_DPI = 120
# Source: Okabe & Ito (2008), Color Universal Design; their yellow and black stand last.
PALETTE = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#F0E442",
)  # fmt: skip
_HATCHES = ("", "////", "....", "xxxx")  # the second time round the palette, and so on
_SMALLEST_MARKER, _LARGEST_MARKER = 40.0, 1_200.0  # area in square points
_MOST_BARRED_LABELS = 12
_MOST_COUNTED_LABELS = 8  # with more, a panel has no room for numbers
_MOST_NAMED_LABELS = 20  # nor for names


def training_curves(history: Sequence[dict[str, Any]]) -> bytes:
    """Returns a PNG of the losses and of validation accuracy and macro-F1 over the epochs."""
    epochs = [record["epoch"] for record in history]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    losses, quality = figure.subplots(1, 2)
    losses.plot(epochs, [record["train_loss"] for record in history], "o-", label="training")
    losses.plot(epochs, [record["validation_loss"] for record in history], "o-", label="validation")
    losses.set(xlabel="epoch", ylabel="cross-entropy")
    for name, label in (("accuracy", "accuracy"), ("macro_f1", "macro-F1")):
        values = [record[f"validation_{name}"] for record in history]
        quality.plot(epochs, values, "o-", label=label)
    quality.set(xlabel="epoch", ylabel="validation")
    for axes in (losses, quality):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)  # a single epoch has no range of its own
        axes.grid(alpha=0.3)
        axes.legend()
    return png(figure)


def confusion_matrix(evaluation: Evaluation) -> bytes:
    """Returns a PNG of the confusion matrix, colored by the share of each true class."""
    counts, labels = evaluation.confusion, evaluation.labels
    side = max(4.0, 0.75 * len(labels) + 1.8)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    image = _draw_confusion(axes, counts, counted=True)
    names = [literal(label) for label in labels]
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    title = f"{evaluation.model}\n{evaluation.data}, {evaluation.split}, n = {counts.sum()}"
    axes.set(xlabel="predicted", ylabel="true", title=literal(title))
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    return png(figure)


def trade_off(record: Row) -> bytes:
    """Returns a PNG of macro-F1 against milliseconds, with the best-trade-off front.

    The time is the p50 of one text (batch 1) end to end on the CPU, the bar the 95 % interval of
    macro-F1, the marker's area the size. A row below half of the best macro-F1 would flatten all
    others: it stands at the lower edge, with its figure. Rows that lack quality or time are named
    below the picture.
    """
    rows = trade_off_rows(record)
    figure = Figure(figsize=(9, 6.2), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    _name_left_out(figure, record, rows, "quality or CPU time")
    if rows:
        _draw_trade_off(figure, axes, rows)
    axes.set(
        xlabel="p50 of one text on the CPU, end to end (ms, log scale)",
        ylabel="macro-F1 with its 95 % interval",
    )
    return png(figure)


def trade_off_rows(record: Row) -> list[Row]:
    """Returns the rows of a comparison with both quality and a CPU time at batch 1."""
    return [row for row in record["rows"] if row["scores"] and latency_at(row, "cpu", 1)]


def front_models(record: Row) -> list[str]:
    """Returns the models that no other beats in both macro-F1 and CPU time, the fastest first."""
    rows = trade_off_rows(record)
    return [rows[index]["model"] for index in pareto_front([_point(row) for row in rows])]


def latency_at(row: Row, device: str, batch_size: int) -> Row | None:
    """Returns the latency of a row on "cpu" or "cuda" at a batch size; None if not measured."""
    place = (device, batch_size)
    found = (cell for cell in row["latencies"] if (cell["device"], cell["batch_size"]) == place)
    return next(found, None)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Returns the indices of the points that no other beats, in the order of their cost.

    A point beats another if it costs no more and is no worse, and differs from it.

    Args:
        points: (cost, quality) of each; the lower the cost and the higher the quality, the better.
    """
    front = [
        index
        for index, (cost, quality) in enumerate(points)
        if not any(
            other_cost <= cost and other >= quality and (other_cost, other) != (cost, quality)
            for other_cost, other in points
        )
    ]
    return sorted(front, key=lambda index: points[index])


def per_class_bars(record: Row) -> bytes:
    """Returns a PNG of each model's F1 by label, a bar a model.

    Of more than 12 labels it shows the 12 with the lowest mean F1.
    """
    rows = [row for row in record["rows"] if row["per_class"]]
    scores = {
        label: [row["per_class"][label]["f1"] for row in rows] for label in record["data"]["labels"]
    }
    shown = list(scores)
    if len(scores) > _MOST_BARRED_LABELS:
        shown = sorted(scores, key=lambda label: sum(scores[label]))[:_MOST_BARRED_LABELS]
    height = len(shown) * (0.14 * len(rows) + 0.15) + 0.25 * len(rows) / 2 + 1
    figure = Figure(figsize=(9, max(3.0, height)), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    _name_left_out(figure, record, rows, "quality")
    thickness = 0.86 / max(len(rows), 1)
    for number, row in enumerate(rows):
        axes.barh(
            np.arange(len(shown)) + (number - (len(rows) - 1) / 2) * thickness,
            [scores[label][number] for label in shown],
            height=thickness,
            color=PALETTE[number % len(PALETTE)],
            hatch=_HATCHES[number // len(PALETTE) % len(_HATCHES)],
            edgecolor="white",
            linewidth=0.5,
            label=literal(short(row["model"], 40)),
        )
    axes.set_yticks(range(len(shown)), [literal(short(label, 24)) for label in shown])
    axes.set(xlim=(0, 1), xlabel=_bars_caption(len(shown), len(scores)))
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    if rows:
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return png(figure)


def confusion_matrices(record: Row) -> bytes:
    """Returns a PNG of the confusion matrices side by side, colored by the share of each class."""
    rows = [row for row in record["rows"] if row["confusion_matrix"]]
    labels = record["data"]["labels"]
    columns = min(3, max(len(rows), 1))
    lines = max(-(-len(rows) // columns), 1)
    width = 9 if columns > 1 else 5.5
    height = (width - 0.6) / columns * lines + 1.8
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False)
    _name_left_out(figure, record, rows, "quality")
    names = [literal(short(label, 14)) for label in labels]
    ticks = range(len(names)) if len(names) <= _MOST_NAMED_LABELS else range(0)
    for axes in grid.flat[len(rows) :]:
        axes.set_axis_off()
    for number, (axes, row) in enumerate(zip(grid.flat, rows, strict=False)):
        counted = len(labels) <= _MOST_COUNTED_LABELS
        image = _draw_confusion(axes, np.array(row["confusion_matrix"]), counted)
        axes.set_title(literal(short(row["model"], 80 // columns)), fontsize=10)
        axes.set_xticks(ticks, names[: len(ticks)], rotation=45, ha="right")
        axes.set_yticks(ticks, names[: len(ticks)])
        left, bottom = number % columns == 0, number + columns >= len(rows)
        axes.tick_params(labelleft=left, labelbottom=bottom)
        axes.set(xlabel="predicted" if bottom else "", ylabel="true" if left else "")
    if rows:
        bar = figure.colorbar(image, ax=grid, orientation="horizontal", shrink=0.4, aspect=40)
        bar.set_label("share of the true class")
    return png(figure)


def _point(row: Row) -> tuple[float, float]:
    """Returns milliseconds and macro-F1 of a row that has both."""
    latency = latency_at(row, "cpu", 1)
    assert latency is not None
    return latency["phases"]["total"]["p50"], row["scores"]["macro_f1"]


def _draw_trade_off(figure: Figure, axes: Axes, rows: Sequence[Row]) -> None:
    points = np.array([_point(row) for row in rows])  # (N, 2): ms, macro-F1
    bounds = np.array([_interval(row) for row in rows])  # (N, 2)
    on_scale = points[:, 1] >= points[:, 1].max() / 2
    front = pareto_front(points.tolist())

    low, high = bounds[on_scale].min(), bounds[on_scale].max()
    pad = max(0.1 * (high - low), 0.01)
    points[~on_scale, 1] = low - pad / 2
    bounds[~on_scale] = low - pad / 2
    axes.set_xscale("log")
    left, right = points[:, 0].min() / 2, points[:, 0].max() * 2
    axes.set(xlim=(left, right), ylim=(low - pad, high + pad))
    # From a baseline to a large transformer the axis has room for the powers of ten only.
    named = (1, 2, 5) if right / left < 1e5 else (1,)
    axes.xaxis.set_major_locator(LogLocator(subs=named, numticks=12))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: three_digits(value)))
    axes.grid(alpha=0.3)

    # What a budget of milliseconds buys rises in steps, and stays where it is after the last.
    steps = np.vstack([points[front], [right, points[front[-1], 1]]])  # (F + 1, 2)
    axes.step(*steps.T, where="post", color=PALETTE[0], linestyle="--", linewidth=1)
    sizes = np.array([row["size_bytes"] for row in rows], dtype=float)
    areas = (_LARGEST_MARKER * sizes / sizes.max()).clip(_SMALLEST_MARKER)
    for index, (ms, macro_f1) in enumerate(points):
        color = PALETTE[0] if index in front else PALETTE[1]
        marker = "o" if on_scale[index] else "v"
        axes.vlines(ms, *bounds[index], color=color, linewidth=1.5)
        axes.scatter(ms, macro_f1, areas[index], color, marker=marker, alpha=0.6, edgecolor="black")

    texts = [_trade_off_label(row, shown) for row, shown in zip(rows, on_scale, strict=True)]
    bars = [((ms, bar[0]), (ms, bar[1])) for ms, bar in zip(points[:, 0], bounds, strict=True)]
    treads = [((x, y), (end, y)) for (x, y), (end, _) in itertools.pairwise(steps)]
    risers = [((x, y), (x, top)) for (_, y), (x, top) in itertools.pairwise(steps)]
    _trade_off_legend(figure, axes)
    place_labels(figure, axes, points, np.sqrt(areas / np.pi), texts, [*bars, *treads, *risers])


def _interval(row: Row) -> Sequence[float]:
    macro_f1 = row["scores"]["macro_f1"]
    return (row["intervals"] or {}).get("macro_f1") or [macro_f1, macro_f1]


def _trade_off_legend(figure: Figure, axes: Axes) -> None:
    axes.plot([], [], "o--", color=PALETTE[0], label="on the best-trade-off front")
    axes.plot([], [], "o", color=PALETTE[1], label="another is as fast or faster, and no worse")
    axes.plot([], [], " ", label="area of a marker: size of the model")
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=9)


def _trade_off_label(row: Row, on_scale: bool) -> str:
    size = row["size_bytes"]
    power = 2 if size >= 1e6 else 1 if size >= 1e3 else 0
    unit = f"{three_digits(size / 1000**power)} {('bytes', 'KB', 'MB')[power]}"
    off_scale = "" if on_scale else f"\n(macro-F1 {row['scores']['macro_f1']:.3f})"
    latency = latency_at(row, "cpu", 1)
    noisy = ", noisy time" if latency and latency["noisy"] else ""
    return literal(f"{short(row['model'], 34)}, {unit}{noisy}{off_scale}")


def _bars_caption(shown: int, total: int) -> str:
    return "F1" if shown == total else f"F1 (the {shown} of {total} labels with the lowest mean)"


def _draw_confusion(axes: Axes, counts: npt.NDArray[Any], counted: bool) -> AxesImage:
    """Draws (C, C) counts, rows true and columns predicted, with their numbers if asked."""
    shares = counts / counts.sum(axis=1, keepdims=True).clip(1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares) if counted else ():
        color = "white" if share > 0.5 else "black"
        count = f"{counts[row, column]:.0f}"
        axes.text(column, row, count, ha="center", va="center", color=color)
    return image


def _name_left_out(figure: Figure, record: Row, rows: Sequence[Row], missing: str) -> None:
    shown = {row["model"] for row in rows}
    names = [short(row["model"], 40) for row in record["rows"] if row["model"] not in shown]
    if names:
        text = f"Not shown, for lack of {missing}: {', '.join(names)}"
        figure.supxlabel(literal(short(text, 160)), fontsize=9, color="0.3")


def short(text: str, limit: int) -> str:
    """Returns a text of at most so many letters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def literal(text: str) -> str:
    """Keeps matplotlib from reading what stands between two dollar signs as a formula."""
    return text.replace("$", r"\$")


def png(figure: Figure) -> bytes:
    """Draws a figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()
