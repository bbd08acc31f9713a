import io
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from featherweight.comparison.plots import (
    confusion_matrices,
    front_models,
    pareto_front,
    per_class_bars,
    pictures,
    trade_off,
    trade_off_rows,
)
from featherweight.comparison.record import Row, build_record
from featherweight.comparison.text import PICTURES
from featherweight.quality.evaluation import Evaluation
from tests.helpers.many_classes import with_classes

LABELS = {
    "special characters": ("$5-$10", "😂 喜び", "x" * 200),
    "many": tuple(f"class {number}" for number in range(21)),
}
Draw = Callable[[dict[str, Any]], bytes]
DRAWN: list[Draw] = [trade_off, per_class_bars, confusion_matrices]


def pixels(png: bytes) -> npt.NDArray[np.float32]:
    """Decodes a PNG to (height, width, 4), each in [0, 1]."""
    image: npt.NDArray[np.float32] = imread(io.BytesIO(png), format="png")
    return image


def small(labels: tuple[str, ...], name: str = "tiny") -> dict[str, Any]:
    """A comparison of one model with everything the pictures need."""
    per_class = {label: {"f1": 0.1 * (number % 10)} for number, label in enumerate(labels)}
    latency = {"device": "cpu", "batch_size": 1, "noisy": False, "total_ms": {"p50": 0.2}}
    row = {
        "model": name,
        "size_bytes": 1000,
        "scores": {"macro_f1": 0.8},
        "intervals": None,
        "per_class": per_class,
        "confusion_matrix": np.eye(len(labels), dtype=int).tolist(),
        "latencies": [latency],
    }
    return {"data": {"labels": list(labels)}, "rows": [row]}


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([], []),
        ([(3.0, 0.5)], [0]),
        # The second costs more and is worse, the third costs more and is better.
        ([(1.0, 0.8), (2.0, 0.7), (3.0, 0.9)], [0, 2]),
        # Ordered by cost, not by position.
        ([(3.0, 0.9), (1.0, 0.7), (2.0, 0.8)], [1, 2, 0]),
        # As good at a higher cost, and worse at the same cost, are both dominated.
        ([(1.0, 0.8), (2.0, 0.8), (1.0, 0.7)], [0]),
        # Equal points do not dominate each other.
        ([(1.0, 0.8), (1.0, 0.8), (5.0, 0.1)], [0, 1]),
        # The first is dominated by the last only.
        ([(2.0, 0.6), (4.0, 0.9), (1.0, 0.7)], [2, 1]),
    ],
)
def test_pareto_front_has_the_points_that_none_dominates(
    points: list[tuple[float, float]], front: list[int]
) -> None:
    assert pareto_front(points) == front


def test_front_of_a_comparison_needs_quality_and_time(comparison: dict[str, Any]) -> None:
    # BERT-base has no quality, the bundle no time; feather beats all that are slower.
    models = [row["model"] for row in trade_off_rows(comparison)]
    assert "BERT-base from the Hub" not in models
    assert "bundle" not in models
    assert len(models) == 7
    assert front_models(comparison) == ["most frequent class", "feather"]
    next(row for row in comparison["rows"] if row["model"] == "classic (fp16)")["scores"][
        "macro_f1"
    ] = 0.99
    assert front_models(comparison) == ["most frequent class", "feather", "classic (fp16)"]


def test_pictures_of_a_comparison_have_a_readable_size(comparison: dict[str, Any]) -> None:
    drawn = pictures(comparison)
    assert tuple(drawn) == PICTURES
    for png in drawn.values():
        image = pixels(png)
        height, width, _ = image.shape
        assert width == 1080
        assert height >= 700
        assert image[:, :, :3].std() > 0.05


@pytest.mark.parametrize("draw", DRAWN)
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.filterwarnings("ignore:Glyph", "ignore:constrained_layout")
def test_single_row_with_any_names_is_a_picture(draw: Draw, labels: tuple[str, ...]) -> None:
    image = pixels(draw(small(labels, name=labels[0])))
    assert min(image.shape[:2]) >= 360
    assert image[:, :, :3].std() > 0.01


def test_bars_show_the_twelve_hardest_of_many_labels() -> None:
    many = small(tuple(f"class {number}" for number in range(77)))
    assert (
        pixels(per_class_bars(many)).shape
        == pixels(per_class_bars(small(tuple("abcdefghijkl")))).shape
    )
    # Of two hundred labels the twelve shown have an F1 of 0, so no bar has any length.
    hard = small(tuple(f"class {number}" for number in range(200)))
    colored = (np.ptp(pixels(per_class_bars(hard))[150:-60, 120:, :3], axis=2) > 0.3).sum()
    easy = (np.ptp(pixels(per_class_bars(many))[150:-60, 120:, :3], axis=2) > 0.3).sum()
    assert colored == 0
    assert easy > 0


@pytest.mark.parametrize("draw", DRAWN)
def test_pictures_of_many_classes_have_a_fixed_size(draw: Draw) -> None:
    size = pixels(draw(with_classes(40))).shape
    assert pixels(draw(with_classes(300))).shape == size
    assert max(size) <= 1_200


def test_panels_say_that_the_names_of_many_classes_are_not_shown(drawn: list[Figure]) -> None:
    confusion_matrices(with_classes(20))
    assert "topic 19" in texts(drawn[-1])
    confusion_matrices(with_classes(77))
    assert "predicted\n(77 classes, names not shown)" in texts(drawn[-1])
    assert not any(text.startswith("topic") for text in texts(drawn[-1]))


def test_row_far_below_the_rest_is_at_the_edge_and_does_not_change_the_scale() -> None:
    record = small(("a", "b"))
    better, worse = (dict(record["rows"][0], model=name) for name in ("better", "worse"))
    better["scores"] = {"macro_f1": 0.82}
    record["rows"] += [better, worse]

    def upper_half(macro_f1: float) -> bytes:
        worse["scores"] = {"macro_f1": macro_f1}
        return pixels(trade_off(record))[:400].tobytes()

    below_half = upper_half(0.40)
    assert below_half == upper_half(0.10)
    assert below_half != upper_half(0.42)  # more than half of the best is on the scale


def texts(figure: Figure) -> list[str]:
    """All texts of a figure, including its ticks."""
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved while the test runs."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *arguments: Any, **options: Any) -> None:
        figures.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def with_timed_only() -> dict[str, Any]:
    """A comparison whose first row is a model that was only timed, as `compare` writes it."""
    evaluation = Evaluation("m", "d", "test", ("a", "b"), np.array([0, 1]), np.eye(2), 1, 400_000)
    rows = [Row("timed", parameters=9, size_bytes=9), Row("evaluated", (evaluation,))]
    record = build_record(rows, ["x", "y"], "evaluated", 0)
    for row, ms in zip(record["rows"], (3000.0, 0.2), strict=True):
        times = {"device": "cpu", "batch_size": 1, "noisy": False, "total_ms": {"p50": ms}}
        row["latencies"] = [times]
    return record


@pytest.mark.parametrize(
    ("draw", "missing"),
    [
        (trade_off, "quality or CPU time"),
        (per_class_bars, "quality"),
        (confusion_matrices, "quality"),
    ],
)
def test_rows_without_figures_are_named_below_the_others(
    draw: Draw, missing: str, drawn: list[Figure]
) -> None:
    record = with_timed_only()
    draw(record)
    written = texts(drawn[-1])
    assert [text for text in written if "timed" in text] == [f"Not shown (no {missing}): timed"]
    assert any(text.startswith("evaluated") for text in written)
    timed = record["rows"].pop(0)
    draw(record)
    assert not any("Not shown" in text for text in texts(drawn[-1]))
    assert min(pixels(draw(record | {"rows": [timed]})).shape[:2]) >= 360


def test_timed_only_row_is_not_on_the_front() -> None:
    record = with_timed_only()
    assert [row["model"] for row in trade_off_rows(record)] == ["evaluated"]
    assert front_models(record) == ["evaluated"]


def two(fast: dict[str, Any], slow: dict[str, Any]) -> dict[str, Any]:
    """A comparison of rows with 0.002 ms and 5 s, with changed fields."""
    record = small(("a", "b"))
    (row,) = record["rows"]
    (latency,) = row["latencies"]
    times = [latency | {"total_ms": {"p50": ms}} for ms in (0.002, 5000.0)]
    record["rows"] = [
        row | {"latencies": [time]} | changes
        for time, changes in zip(times, (fast, slow), strict=True)
    ]
    return record


def test_large_sizes_and_times_have_thousands_and_no_exponent(drawn: list[Figure]) -> None:
    fast, slow = ({"model": "tiny", "size_bytes": 999_900}, {"model": "huge"})
    trade_off(two(fast, slow | {"size_bytes": 1_742_000_000}))
    written = texts(drawn[-1])
    assert {"tiny, 1,000 KB", "huge, 1,740 MB", "0.01", "1,000"} <= set(written)
    assert not any("e+" in text for text in written)


def test_ticks_of_a_wide_axis_do_not_overlap(drawn: list[Figure]) -> None:
    trade_off(two({"model": "a baseline"}, {"model": "a large model"}))
    (axes,) = drawn[-1].axes
    left, right = axes.get_xlim()
    boxes = [
        label.get_window_extent()
        for label, place in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)
        if left <= place <= right
    ]
    assert len(boxes) >= 5
    assert all(one.x1 < other.x0 for one, other in itertools.pairwise(boxes))


def test_rejected_variant_is_marked(drawn: list[Figure]) -> None:
    record = small(("a", "b"), name="tiny (int8)")
    record["rows"][0]["rejected"] = "too slow"
    for draw in DRAWN:
        draw(record)
        assert any(text.startswith("tiny (int8, rejected)") for text in texts(drawn[-1]))
    assert front_models(record) == ["tiny (int8, rejected)"]
