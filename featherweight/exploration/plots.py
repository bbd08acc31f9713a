"""Plots of a data set, as PNG bytes; a class has the same color in all of them."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, StrMethodFormatter

from featherweight.classifier import FloatArray, IntArray
from featherweight.data.dataset import Dataset
from featherweight.exploration.figures import Term
from featherweight.reports.classes import MAX_CLASSES
from featherweight.reports.plots import PALETTE, literal, png, short

_WIDTH = 9  # inches
_MARKERS = "osD^vPX*"  # the next marker for each repetition of the palette
_MAX_PANELS = 12
_MAX_LEGEND = 24  # classes that fit into a legend
_MAX_NAME = 24  # characters of a label or term


def class_bars(dataset: Dataset) -> bytes:
    """Returns a PNG of the number of training texts of each class, of many the largest first."""
    counts = np.bincount(dataset.train.labels, minlength=len(dataset.labels))
    figure, axes, order = _class_rows(dataset.labels, -counts, "the largest first")
    colors = _colors(len(counts))
    bars = axes.barh(range(len(counts)), counts[order], color=[colors[label] for label in order])
    if len(counts) <= MAX_CLASSES:
        texts = [f"{count:,} ({count / counts.sum():.1%})" for count in counts]
        axes.bar_label(bars, texts, padding=4)
    axes.set(xlabel="training texts", xlim=(0, 1.2 * counts.max()))
    return png(figure)


def length_histogram(lengths: IntArray, max_length: int) -> bytes:
    """Returns a PNG with the histogram of the lengths of training texts.

    Args:
        lengths: (N,) number of words.
        max_length: Limit of the default tokenizer; drawn if it is in or near the range.
    """
    figure = Figure(figsize=(_WIDTH, 3.4), layout="constrained")
    axes = figure.subplots()
    longest = int(lengths.max())
    width = max(1, -(-longest // 70))  # words per bar: about 70 bars
    edges = np.arange(-0.5, longest + width + 0.5, width)
    axes.hist(lengths, bins=edges.tolist(), color="0.6")
    median, p99 = np.percentile(lengths, [50, 99]).tolist()
    lines: dict[str, tuple[float, str]] = {"median": (median, "-"), "99%": (p99, "--")}
    if max_length < 1.5 * longest:
        lines["default limit"] = (max_length, ":")
    for name, (position, style) in lines.items():
        axes.axvline(
            position, color="black", linestyle=style, label=f"{name}: {position:.0f} words"
        )
    axes.set(xlabel="length of a text (words)", ylabel="training texts")
    axes.legend(frameon=False)
    return png(figure)


def length_boxes(lengths: IntArray, labels: IntArray, label_names: Sequence[str]) -> bytes:
    """Returns a PNG of the lengths (N,) of training texts by class: quartiles and 5 to 95 %."""
    by_class = [lengths[labels == label] for label in range(len(label_names))]
    medians = np.array([np.median(own) if len(own) else 0 for own in by_class])
    figure, axes, order = _class_rows(label_names, -medians, "the longest median first")
    many = len(label_names) > MAX_CLASSES  # whose outlines would hide their boxes
    boxes = axes.boxplot(
        [by_class[label] for label in order],
        positions=range(len(label_names)),
        orientation="horizontal",
        widths=0.6,
        whis=(5, 95),
        showfliers=False,
        patch_artist=True,
        medianprops={"color": "black"},
        boxprops={"linewidth": 0 if many else 1},
        whiskerprops={"color": "0.6" if many else "black"},
        showcaps=not many,
        manage_ticks=False,
    )
    colors = _colors(len(label_names))
    for box, label in zip(boxes["boxes"], order, strict=True):
        box.set_facecolor(colors[label])
    axes.set(xlabel="length of a text (words): median, quartiles, 5 to 95%")
    axes.set_xlim(left=0)
    return png(figure)


def coverage_curves(shares: Mapping[str, FloatArray], vocab_size: int) -> bytes:
    """Returns a PNG of the share of each split that a vocabulary of the training texts covers.

    Args:
        shares: Share of all words that the first 1, 2, … V words cover, by split.
        vocab_size: Size of the default vocabulary, in words.
    """
    figure = Figure(figsize=(_WIDTH, 3.8), layout="constrained")
    axes = figure.subplots()
    for (split, share), style in zip(shares.items(), ("-", "--", ":"), strict=False):
        sizes = np.arange(1, len(share) + 1)
        axes.plot(sizes, share, color="black", linestyle=style, label=split)
    axes.axvline(vocab_size, color="0.6", label=f"default vocabulary: {vocab_size:,} words")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set(
        xlabel="size of the vocabulary (most frequent training words, log scale)",
        ylabel="share of words covered",
        ylim=(0, 1.02),
    )
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="upper left")
    return png(figure)


def typical_bars(typical: Mapping[str, Sequence[Term]], label_names: Sequence[str]) -> bytes:
    """Returns a PNG of the typical terms of each class, one panel per class.

    Args:
        typical: Terms by label, the strongest first; only the first 12 labels are shown.
        label_names: The C label names, in id order.
    """
    shown = [label for label in label_names if typical.get(label)][:_MAX_PANELS]
    rows = max((len(typical[label]) for label in shown), default=1)
    columns = min(3, max(len(shown), 1))
    lines = max(-(-len(shown) // columns), 1)
    figure = Figure(figsize=(_WIDTH, lines * (0.22 * rows + 0.6) + 0.4), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True)
    colors = dict(zip(label_names, _colors(len(label_names)), strict=True))
    for axes, label in zip(grid.flat, shown, strict=False):
        terms = typical[label]
        axes.barh(range(len(terms)), [term.z for term in terms], color=colors[label])
        axes.set_ylim(rows - 0.5, -0.5)
        axes.set_yticks(range(len(terms)), [literal(short(term.text, _MAX_NAME)) for term in terms])
        axes.set_title(literal(short(label, _MAX_NAME)), fontsize=10)
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
    for axes in grid.flat[len(shown) :]:
        axes.set_axis_off()
    note = f"; {len(shown)} of {len(label_names)} classes" if len(shown) < len(label_names) else ""
    score = "log-odds against all other classes (z, standard deviations)"
    figure.supxlabel(f"{score}{note}", fontsize=10)
    return png(figure)


def scatter(maps: Mapping[str, FloatArray], labels: IntArray, label_names: Sequence[str]) -> bytes:
    """Returns a PNG of maps side by side, one point per text, colored by its class.

    Args:
        maps: Points (N, 2) by title.
        labels: (N,) class ids.
        label_names: The C label names, in id order.
    """
    figure = Figure(figsize=(_WIDTH, 0.9 * _WIDTH / max(len(maps), 1.4)), layout="constrained")
    panels = figure.subplots(1, len(maps), squeeze=False)[0]
    colors = _colors(len(label_names))
    for axes, (title, points) in zip(panels, maps.items(), strict=True):
        for label, name in enumerate(label_names):
            axes.scatter(
                *points[labels == label].T,
                s=18,
                color=colors[label],
                marker=_MARKERS[label // len(PALETTE) % len(_MARKERS)],
                alpha=0.75,
                linewidth=0,
                label=literal(short(name, _MAX_NAME)),
            )
        axes.set(title=literal(title), xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)")
        axes.set(xticks=[], yticks=[])
    if len(label_names) <= _MAX_LEGEND:
        entries = panels[0].get_legend_handles_labels()
        figure.legend(*entries, loc="outside lower center", ncols=6, frameon=False, markerscale=2)
    else:
        note = f"{len(label_names)} classes, some in the same color (names not shown)"
        figure.supxlabel(note, fontsize=10)
    return png(figure)


def _colors(count: int) -> list[str]:
    """Returns the color of each class id."""
    return [PALETTE[index % len(PALETTE)] for index in range(count)]


def _class_rows(
    label_names: Sequence[str], keys: FloatArray | IntArray, ordered: str
) -> tuple[Figure, Axes, list[int]]:
    """Returns a figure with one row per class, its axes, and the class id of each row.

    Few classes are named and in id order; many are ordered by their keys (C,), as the axis says.
    """
    count = len(label_names)
    height = 0.42 * count + 1 if count <= MAX_CLASSES else _WIDTH
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.set_ylim(count - 0.4, -0.6)
    if count > MAX_CLASSES:
        axes.set_ylabel(f"{count} classes, {ordered} (names not shown)")
        axes.set_yticks([])
        return figure, axes, np.argsort(keys, kind="stable").tolist()
    names = [literal(short(name, _MAX_NAME)) for name in label_names]
    axes.set_yticks(range(count), names)
    return figure, axes, list(range(count))
