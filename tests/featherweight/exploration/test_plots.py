import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.image import imread

from featherweight.data.dataset import Dataset, Split
from featherweight.exploration import plots
from featherweight.exploration.figures import Term
from featherweight.reports.plots import PALETTE

SIX = ("sadness", "joy", "love", "anger", "fear", "surprise")
AWKWARD = {
    "dollars": ("$_$", "a_b^c", "x" * 90),
    "many": tuple(f"class {number}" for number in range(30)),
}


def drawn(labels: tuple[str, ...]) -> dict[str, Callable[[], bytes]]:
    """Returns the plots of a data set with some labels."""
    rng = np.random.default_rng(0)
    ids = np.arange(20 * len(labels)) % len(labels)
    lengths = rng.integers(1, 60, len(ids))
    split = Split("train", tuple(map(str, ids)), ids, labels)
    terms = {label: [Term(f"${label}", 3.0, 2, 4), Term("so, so", 1.0, 1, 4)] for label in labels}
    shares = {"train": np.linspace(0.1, 1, 50), "validation": np.linspace(0.1, 0.9, 50)}
    points = rng.normal(size=(len(ids), 2))
    return {
        "class_bars": lambda: plots.class_bars(Dataset("d", labels, split, split)),
        "length_histogram": lambda: plots.length_histogram(lengths, 128),
        "length_boxes": lambda: plots.length_boxes(lengths, ids, labels),
        "coverage_curves": lambda: plots.coverage_curves(shares, 30),
        "typical_bars": lambda: plots.typical_bars(terms, labels),
        "scatter": lambda: plots.scatter({"$words": points, "learned": points}, ids, labels),
    }


def pixels(png: bytes) -> npt.NDArray[np.float32]:
    """Decodes a PNG to (height, width, 3), each in [0, 1]."""
    image: npt.NDArray[np.float32] = imread(io.BytesIO(png), format="png")[:, :, :3]
    return image


def of(image: npt.NDArray[np.float32], color: str) -> npt.NDArray[np.bool_]:
    """Returns (height, width): where an image has a color."""
    return (np.abs(image - np.array(to_rgb(color))) < 0.01).all(axis=2)


def has(image: npt.NDArray[np.float32], color: str) -> bool:
    """Returns whether more than 50 pixels have a color."""
    return int(of(image, color).sum()) > 50


@pytest.mark.parametrize("plot", drawn(("a", "b")))
@pytest.mark.parametrize("labels", ["dollars", "many"])
def test_every_plot_is_drawn_for_awkward_labels(labels: str, plot: str) -> None:
    image = pixels(drawn(AWKWARD[labels])[plot]())
    assert image.shape[1] == 1080
    assert image.std() > 0.02


@pytest.mark.parametrize("plot", drawn(("a", "b")))
def test_plots_of_many_classes_have_a_fixed_size(plot: str) -> None:
    sizes = {
        count: pixels(drawn(tuple(f"class {number}" for number in range(count)))[plot]()).shape
        for count in (31, 200)
    }
    assert sizes[31] == sizes[200]
    assert max(sizes[200]) <= 1_200


def test_many_classes_are_ordered_by_their_size() -> None:
    labels = tuple(f"class {number}" for number in range(40))
    ids = np.repeat(np.arange(40), [1, 100, *[1] * 38])  # the second class is the largest
    split = Split("train", ("a",) * len(ids), ids, labels)
    image = pixels(plots.class_bars(Dataset("d", labels, split, split)))
    rows = np.nonzero(of(image, PALETTE[1])[:, 700:].any(axis=1))[0]  # only its bar is this long
    assert 0 < rows.mean() < image.shape[0] / 20


@pytest.mark.parametrize("plot", ["class_bars", "length_boxes"])
def test_rows_have_the_colors_of_their_classes(plot: str) -> None:
    image = pixels(drawn(SIX)[plot]())
    heights = [np.nonzero(of(image, color))[0].mean() for color in PALETTE[:6]]
    assert heights == sorted(heights)


def test_panels_and_points_have_the_colors_of_their_classes() -> None:
    labels = ("joy", "love", "fear")
    fear = {"fear": [Term("afraid", 2.0, 1, 1)]}
    assert of(pixels(plots.typical_bars(fear, labels)), PALETTE[2]).sum() > 500
    points = np.random.default_rng(0).normal(size=(60, 2))
    image = pixels(plots.scatter({"words": points}, np.full(60, 2), labels))
    transparent = to_hex(0.75 * np.array(to_rgb(PALETTE[2])) + 0.25)
    assert of(image, transparent).sum() > 500


def test_class_without_texts_keeps_its_color() -> None:
    labels, ids = ("joy", "love", "fear"), np.array([0, 2, 2, 0] * 30)
    boxes = pixels(plots.length_boxes(np.arange(120), ids, labels))
    split = Split("train", ("a",) * 120, ids, labels)
    bars = pixels(plots.class_bars(Dataset("d", labels, split, split)))
    for image in (boxes, bars):
        assert [has(image, color) for color in PALETTE[:3]] == [True, False, True]


def test_default_limit_is_drawn_only_if_it_is_near() -> None:
    lengths = np.array([3, 9, 20])
    far = plots.length_histogram(lengths, 128)
    assert far == plots.length_histogram(lengths, 512)
    assert far != plots.length_histogram(lengths, 24)


def test_only_the_first_classes_have_a_panel_of_terms() -> None:
    labels = AWKWARD["many"]
    terms = {label: [Term("a", 1.0, 1, 2)] for label in labels}
    first = {label: terms[label] for label in labels[:12]}
    assert plots.typical_bars(terms, labels) == plots.typical_bars(first, labels)
    assert pixels(plots.typical_bars({}, labels)).shape[1] == 1080
