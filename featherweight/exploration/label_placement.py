"""Where the names of points go in a plot, so that they hide neither each other nor a point."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.transforms import Bbox

_ANGLES = np.deg2rad([0, 180, 90, 270, 45, 315, 135, 225, 20, 340, 160, 200])
_DISTANCES = (5.0, 14.0, 26.0, 40.0, 58.0, 80.0, 110.0)  # points between marker and text
# What a hidden square pixel and a crossing cost, beside a point of distance, which costs 1.
_HIDDEN_LABEL, _HIDDEN_MARK, _OUTSIDE, _CROSSING = 20.0, 4.0, 100.0, 150.0

_LEADER = {"arrowstyle": "-", "color": "0.5", "linewidth": 0.7, "shrinkA": 0}

Segment = tuple[tuple[float, float], tuple[float, float]]


def place_labels(
    figure: Figure,
    axes: Axes,
    points: npt.NDArray[np.float64],
    radii: npt.NDArray[np.float64],
    texts: Sequence[str],
    lines: Sequence[Segment],
) -> None:
    """Writes a text beside each point, joined to it by a thin line.

    Each text in turn takes the place around its point that hides least and lies nearest.

    Args:
        figure: The figure with all else drawn and its limits set.
        axes: The axes to write into.
        points: (N, 2), in data coordinates.
        radii: (N,) of the markers, in points (1/72 inch).
        texts: N of them.
        lines: Upright or level lines to keep clear of, in data coordinates.
    """
    figure.draw_without_rendering()  # settles the layout, hence what a pixel is
    pixel = figure.dpi / 72  # pixels per point
    centres = axes.transData.transform(points)  # (N, 2)
    marks = [
        Bbox.from_extents(x - radius, y - radius, x + radius, y + radius)
        for (x, y), radius in zip(centres, radii * pixel, strict=True)
    ]
    for line in lines:
        (left, bottom), (right, top) = axes.transData.transform(line)
        marks.append(Bbox.from_extents(left - 2, bottom - 2, right + 2, top + 2))

    taken: list[tuple[Bbox, Path]] = []  # the boxes of the texts so far, and their lines
    for point, centre, radius, text in zip(points, centres, radii, texts, strict=True):
        label = axes.annotate(
            text,
            point,
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=9,
            arrowprops={**_LEADER, "shrinkB": radius},
        )
        label.set_in_layout(False)
        extent = label.get_window_extent()
        places = [
            (distance, _box(centre, extent, (radius + distance) * pixel, angle))
            for distance in _DISTANCES
            for angle in _ANGLES
        ]
        costs = [
            distance + _cost(box, _leader(centre, box), taken, marks, axes.bbox)
            for distance, box in places
        ]
        _, box = places[int(np.argmin(costs))]
        taken.append((box, _leader(centre, box)))
        label.set_position(tuple((_middle(box) - centre) / pixel))


def _cost(
    box: Bbox,
    leader: Path,
    taken: Iterable[tuple[Bbox, Path]],
    marks: Iterable[Bbox],
    frame: Bbox,
) -> float:
    """Returns what a text in a box, joined to its point by a leader, takes from the picture."""
    cost = _OUTSIDE * (_area(box) - _overlap(box, frame))
    cost += _HIDDEN_MARK * sum(_overlap(box, mark) for mark in marks)
    for other, other_leader in taken:
        cost += _HIDDEN_LABEL * _overlap(box, other)
        cost += _CROSSING * leader.intersects_bbox(other, filled=False)
        cost += _CROSSING * other_leader.intersects_bbox(box, filled=False)
    return cost


def _box(centre: npt.NDArray[np.float64], extent: Bbox, distance: float, angle: float) -> Bbox:
    """Returns a box of a text's extent, at a distance of its edge from a centre, in pixels."""
    direction = np.array([np.cos(angle), np.sin(angle)])
    half = np.array([extent.width, extent.height]) / 2
    middle = centre + direction * (distance + half)
    return Bbox([middle - half, middle + half])


def _leader(centre: npt.NDArray[np.float64], box: Bbox) -> Path:
    return Path([centre, _middle(box)])


def _overlap(one: Bbox, other: Bbox) -> float:
    common = Bbox.intersection(one, other)
    return _area(common) if common else 0.0


def _area(box: Bbox) -> float:
    return float(box.width * box.height)


def _middle(box: Bbox) -> npt.NDArray[np.float64]:
    return np.array([(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2])
