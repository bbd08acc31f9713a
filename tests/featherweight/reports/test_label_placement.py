import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from featherweight.reports.label_placement import place_labels

# Nine pixels apart: less than the height of a label.
PAIR = [(0.2, 0.5), (0.2, 0.516)]
CROWD = [(0.5, 0.5)] * 6
LINE = [(0.1 * number, 0.5) for number in range(1, 10)]
CORNERS = [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)]


def placed(points: Sequence[tuple[float, float]], radius: float) -> tuple[list[Bbox], Bbox]:
    """Returns the boxes of the labels and of the axes, in pixels."""
    figure = Figure(figsize=(9, 6), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    radii = np.full(len(points), radius)
    texts = [f"number {number}" for number in range(len(points))]
    place_labels(figure, axes, np.array(points), radii, texts, [((0.5, 0.2), (0.5, 0.8))])
    figure.draw_without_rendering()
    labels = [artist for artist in axes.texts if isinstance(artist, Annotation)]
    return [Text.get_window_extent(label) for label in labels], axes.bbox


@pytest.mark.parametrize(
    "points", [PAIR, CROWD, LINE, CORNERS], ids=["pair", "crowd", "line", "corners"]
)
def test_labels_overlap_neither_each_other_nor_the_frame(
    points: list[tuple[float, float]],
) -> None:
    boxes, frame = placed(points, radius=5)
    assert len(boxes) == len(points)
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    for box in boxes:
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1
        assert frame.y0 <= box.y0 and box.y1 <= frame.y1


def test_label_is_next_to_a_marker_with_space() -> None:
    (box,), frame = placed([(0.2, 0.4)], radius=18)
    # The marker ends 18 points (25 pixels) right of its center, the label starts 7 pixels further.
    center = frame.x0 + 0.2 * frame.width
    assert box.x0 - center == pytest.approx((18 + 5) * 100 / 72, abs=1)
    assert (box.y0 + box.y1) / 2 == pytest.approx(frame.y0 + 0.4 * frame.height, abs=1)


def test_label_does_not_cover_a_line() -> None:
    (box,), frame = placed([(0.45, 0.5)], radius=5)
    assert box.x1 < frame.x0 + 0.5 * frame.width
