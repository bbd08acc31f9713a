"""Placement of the names of points in a plot, so that they hide neither names nor points."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.transforms import Bbox

_ANGLES = np.deg2rad([0, 180, 90, 270, 45, 315, 135, 225, 20, 340, 160, 200])
_DISTANCES = (5.0, 14.0, 26.0, 40.0, 58.0, 80.0, 110.0)  # points between marker and text
# Costs per hidden square pixel and per crossing; one point of distance costs 1.
_HIDDEN_LABEL, _HIDDEN_MARKER, _OUTSIDE, _CROSSING = 20.0, 4.0, 100.0, 150.0

_LEADER = {"arrowstyle": "-", "color": "0.5", "linewidth": 0.7, "shrinkA": 0}
_LABEL: Mapping[str, Any] = {
    "xytext": (0, 0), "textcoords": "offset points", "ha": "center", "va": "center",
    "fontsize": 9, "in_layout": False,
}  # fmt: skip
_LINE_MARGIN = 2.0  # pixels

Segment = tuple[tuple[float, float], tuple[float, float]]


def place_labels(
    figure: Figure,
    axes: Axes,
    points: npt.NDArray[np.float64],
    radii: npt.NDArray[np.float64],
    texts: Sequence[str],
    lines: Sequence[Segment],
) -> None:
    """Writes a label beside each point, connected to it by a thin line.

    Each label in turn takes the position around its point with the lowest cost: near the point,
    inside the axes, and hiding as little as possible.

    Args:
        figure: The figure, complete apart from the labels and with its limits set.
        axes: The axes to write into.
        points: (N, 2), in data coordinates.
        radii: (N,) radii of the markers, in points (1/72 inch).
        texts: N labels.
        lines: Vertical or horizontal lines to keep clear of, in data coordinates.
    """
    figure.draw_without_rendering()  # computes the layout, which defines the pixels
    pixel = figure.dpi / 72  # pixels per point
    centers = axes.transData.transform(points)  # (N, 2)
    margins = (radii * pixel)[:, np.newaxis]
    drawn = list(map(Bbox, np.stack([centers - margins, centers + margins], axis=1)))
    for line in lines:
        low, high = axes.transData.transform(line)
        drawn.append(Bbox([low - _LINE_MARGIN, high + _LINE_MARGIN]))
    taken: list[tuple[Bbox, Path]] = []  # boxes and leaders of the labels so far
    for point, center, radius, text in zip(points, centers, radii, texts, strict=True):
        label = axes.annotate(text, point, **_LABEL, arrowprops={**_LEADER, "shrinkB": radius})
        extent, positions = label.get_window_extent(), []
        for distance, angle in itertools.product(_DISTANCES, _ANGLES):
            box, leader = _position(center, extent, (radius + distance) * pixel, angle)
            positions.append((distance + _cost(box, leader, taken, drawn, axes.bbox), box, leader))
        _, box, leader = min(positions, key=itemgetter(0))
        taken.append((box, leader))
        label.set_position(tuple((np.asarray(leader.vertices)[1] - center) / pixel))


def _cost(
    box: Bbox,
    leader: Path,
    taken: Iterable[tuple[Bbox, Path]],
    markers: Iterable[Bbox],
    frame: Bbox,
) -> float:
    """Returns the cost of a label in a box that a leader connects to its point."""
    cost = _OUTSIDE * (_area(box) - _overlap(box, frame))
    cost += _HIDDEN_MARKER * sum(_overlap(box, marker) for marker in markers)
    for other, other_leader in taken:
        cost += _HIDDEN_LABEL * _overlap(box, other)
        cost += _CROSSING * leader.intersects_bbox(other, filled=False)
        cost += _CROSSING * other_leader.intersects_bbox(box, filled=False)
    return cost


def _position(
    center: npt.NDArray[np.float64], extent: Bbox, distance: float, angle: float
) -> tuple[Bbox, Path]:
    """Returns the box of a label whose edge is at a distance from a center, and its leader."""
    direction = np.array([np.cos(angle), np.sin(angle)])
    half = np.array([extent.width, extent.height]) / 2
    middle = center + direction * (distance + half)
    return Bbox([middle - half, middle + half]), Path([center, middle])


def _overlap(one: Bbox, other: Bbox) -> float:
    common = Bbox.intersection(one, other)
    return _area(common) if common else 0.0


def _area(box: Bbox) -> float:
    return float(box.width * box.height)
