"""Pictures of a comparison as PNG bytes, made from its record."""

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from featherweight.comparison.record import Record, latency_at, model_name
from featherweight.reports.label_placement import place_labels
from featherweight.reports.numbers import three_digits
from featherweight.reports.plots import (
    DPI,
    PALETTE,
    draw_confusion,
    literal,
    name_classes,
    png,
    short,
)

_HATCHES = ("", "////", "....", "xxxx")  # one for each repetition of the palette
_MIN_MARKER, _MAX_MARKER = 40.0, 1_200.0  # area in square points
_MAX_BAR_LABELS = 12
_MAX_COUNT_LABELS = 8  # with more labels, a panel has no room for the counts
_MAX_TICK_LABELS = 20  # with more labels, a panel has no room for their names


def pictures(record: Record) -> dict[str, bytes]:
    """Returns the PNGs of a report by name."""
    return {
        "trade_off": trade_off(record),
        "confusion_matrices": confusion_matrices(record),
        "per_class": per_class_bars(record),
    }


def trade_off(record: Record) -> bytes:
    """Returns a PNG of macro-F1 against milliseconds, with the Pareto front.

    The time is the p50 of one text (batch size 1) end to end on the CPU, the bar the 95 % interval
    of macro-F1, the marker's area the size. A row below half of the best macro-F1 would compress
    the scale for all others, so it is drawn at the lower edge, labeled with its score. Rows
    without scores or time are named below the picture.
    """
    rows = trade_off_rows(record)
    figure = Figure(figsize=(9, 6.2), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    _name_missing(figure, record, rows, "quality or CPU time")
    if rows:
        _draw_trade_off(figure, axes, rows)
    axes.set(
        xlabel="p50 of one text on the CPU, end to end (ms, log scale)",
        ylabel="macro-F1 with its 95 % interval",
    )
    return png(figure)


def trade_off_rows(record: Record) -> list[Record]:
    """Returns the rows of a comparison with both scores and a CPU time at batch size 1."""
    return [row for row in record["rows"] if row["scores"] and latency_at(row, "cpu", 1)]


def front_models(record: Record) -> list[str]:
    """Returns the models on the Pareto front of macro-F1 and CPU time, the fastest first."""
    rows = trade_off_rows(record)
    return [model_name(rows[index]) for index in pareto_front([_point(row) for row in rows])]


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Returns the indices of the points that no other dominates, in the order of their cost.

    A point dominates another if it costs no more, is no worse, and differs from it.

    Args:
        points: (cost, quality) of each; lower cost and higher quality are better.
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


def per_class_bars(record: Record) -> bytes:
    """Returns a PNG of each model's F1 by label, one bar per model.

    With more than 12 labels, only the 12 with the lowest mean F1 are shown.
    """
    rows = [row for row in record["rows"] if row["per_class"]]
    scores = {
        label: [row["per_class"][label]["f1"] for row in rows] for label in record["data"]["labels"]
    }
    shown, caption = list(scores), "F1"
    if len(scores) > _MAX_BAR_LABELS:
        shown = sorted(scores, key=lambda label: sum(scores[label]))[:_MAX_BAR_LABELS]
        caption = f"F1 (the {len(shown)} of {len(scores)} labels with the lowest mean)"
    height = len(shown) * (0.14 * len(rows) + 0.15) + 0.25 * len(rows) / 2 + 1
    figure = Figure(figsize=(9, max(3.0, height)), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    _name_missing(figure, record, rows, "quality")
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
            label=literal(short(model_name(row), 40)),
        )
    axes.set_yticks(range(len(shown)), [literal(short(label, 24)) for label in shown])
    axes.set(xlim=(0, 1), xlabel=caption)
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    if rows:
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return png(figure)


def confusion_matrices(record: Record) -> bytes:
    """Returns a PNG of the confusion matrices, colored by the share of each true class."""
    rows = [row for row in record["rows"] if row["confusion_matrix"]]
    labels = record["data"]["labels"]
    columns = min(3, max(len(rows), 1))
    lines = max(-(-len(rows) // columns), 1)
    width = 9 if columns > 1 else 5.5
    names = 1.8 if len(labels) <= _MAX_TICK_LABELS else 1.4
    height = (width - 0.6) / columns * lines + names
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False)
    _name_missing(figure, record, rows, "quality")
    for axes in grid.flat[len(rows) :]:
        axes.set_axis_off()
    for number, (axes, row) in enumerate(zip(grid.flat, rows, strict=False)):
        counted = len(labels) <= _MAX_COUNT_LABELS
        image = draw_confusion(axes, np.array(row["confusion_matrix"]), counted)
        axes.set_title(literal(short(model_name(row), 80 // columns)), fontsize=10)
        name_classes(axes, labels, _MAX_TICK_LABELS, max_letters=14)
        left, bottom = number % columns == 0, number + columns >= len(rows)
        axes.tick_params(labelleft=left, labelbottom=bottom)
        axes.xaxis.label.set_visible(bottom)
        axes.yaxis.label.set_visible(left)
    if rows:
        bar = figure.colorbar(image, ax=grid, orientation="horizontal", shrink=0.4, aspect=40)
        bar.set_label("share of the true class")
    return png(figure)


def _point(row: Record) -> tuple[float, float]:
    """Returns milliseconds and macro-F1 of a row that has both."""
    latency = latency_at(row, "cpu", 1)
    assert latency is not None
    return latency["total_ms"]["p50"], row["scores"]["macro_f1"]


def _draw_trade_off(figure: Figure, axes: Axes, rows: Sequence[Record]) -> None:
    points = np.array([_point(row) for row in rows])  # (N, 2): ms, macro-F1
    bounds = np.array([_interval(row) for row in rows])  # (N, 2)
    on_scale = points[:, 1] >= points[:, 1].max() / 2
    front = pareto_front(points.tolist())

    low, high = bounds[on_scale].min(), bounds[on_scale].max()
    pad = max(0.1 * (high - low), 0.01)
    points[~on_scale, 1] = low - pad / 2
    bounds[~on_scale] = low - pad / 2
    left, right = points[:, 0].min() / 2, points[:, 0].max() * 2
    _log_axis(axes, left, right)
    axes.set_ylim(low - pad, high + pad)

    # The best score within a time budget rises in steps, and is constant after the last.
    steps = np.vstack([points[front], [right, points[front[-1], 1]]])  # (F + 1, 2)
    axes.step(*steps.T, where="post", color=PALETTE[0], linestyle="--", linewidth=1)
    sizes = np.array([row["size_bytes"] for row in rows], dtype=float)
    areas = (_MAX_MARKER * sizes / sizes.max()).clip(_MIN_MARKER)
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


def _log_axis(axes: Axes, left: float, right: float) -> None:
    axes.set_xscale("log")
    axes.set_xlim(left, right)
    # From a baseline to a large transformer, the axis has room for the powers of ten only.
    labeled = (1, 2, 5) if right / left < 1e5 else (1,)
    axes.xaxis.set_major_locator(LogLocator(subs=labeled, numticks=12))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: three_digits(value)))
    axes.grid(alpha=0.3)


def _interval(row: Record) -> Sequence[float]:
    macro_f1 = row["scores"]["macro_f1"]
    return (row["intervals"] or {}).get("macro_f1") or [macro_f1, macro_f1]


def _trade_off_legend(figure: Figure, axes: Axes) -> None:
    axes.plot([], [], "o--", color=PALETTE[0], label="best trade-offs (Pareto front)")
    axes.plot([], [], "o", color=PALETTE[1], label="dominated")
    axes.plot([], [], " ", label="area of a marker: size of the model")
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=9)


def _trade_off_label(row: Record, on_scale: bool) -> str:
    size = row["size_bytes"]
    power = 2 if size >= 1e6 else 1 if size >= 1e3 else 0
    unit = f"{three_digits(size / 1000**power)} {('bytes', 'KB', 'MB')[power]}"
    off_scale = "" if on_scale else f"\n(macro-F1 {row['scores']['macro_f1']:.3f})"
    latency = latency_at(row, "cpu", 1)
    noisy = ", noisy time" if latency and latency["noisy"] else ""
    return literal(f"{short(model_name(row), 34)}, {unit}{noisy}{off_scale}")


def _name_missing(figure: Figure, record: Record, rows: Sequence[Record], missing: str) -> None:
    """Writes the names of the rows that are not shown below the figure."""
    shown = {row["model"] for row in rows}
    names = [short(model_name(row), 40) for row in record["rows"] if row["model"] not in shown]
    if names:
        text = f"Not shown (no {missing}): {', '.join(names)}"
        figure.supxlabel(literal(short(text, 160)), fontsize=9, color="0.3")
