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

from featherweight.comparison.record import Row, build_record
from featherweight.quality.evaluation import Evaluation
from featherweight.reports.plots import (
    confusion_matrices,
    confusion_matrix,
    front_models,
    latency_at,
    pareto_front,
    per_class_bars,
    trade_off,
    trade_off_rows,
    training_curves,
)

AWKWARD = {
    "plain": ("a", "b", "c"),
    "emoji": ("😂", "喜び", "ünï"),
    "dollars": ("$_$", "$5-$10", "a_b^c"),
    "long": ("x" * 200, "b", "c"),
    "many": tuple(f"class {number}" for number in range(12)),
}
PICTURES: list[Callable[[dict[str, Any]], bytes]] = [trade_off, per_class_bars, confusion_matrices]


def pixels(png: bytes) -> npt.NDArray[np.float32]:
    """Decodes a PNG to (height, width, 4), each in [0, 1]."""
    image: npt.NDArray[np.float32] = imread(io.BytesIO(png), format="png")
    return image


def small(labels: tuple[str, ...], name: str = "mine") -> dict[str, Any]:
    """A comparison of one model that has all that the pictures need, at some labels."""
    per_class = {label: {"f1": 0.1 * (number % 10)} for number, label in enumerate(labels)}
    latency = {"device": "cpu", "batch_size": 1, "noisy": False, "phases": {"total": {"p50": 0.2}}}
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


@pytest.mark.parametrize("labels", AWKWARD.values(), ids=AWKWARD)
@pytest.mark.filterwarnings("ignore:Glyph", "ignore:constrained_layout")
def test_the_confusion_matrix_is_a_picture_whatever_the_labels(labels: tuple[str, ...]) -> None:
    answers = np.full((3, len(labels)), 0.0)
    answers[[0, 1, 2], [0, 1, 1]] = 1
    evaluation = Evaluation("m", "d", "test", labels, np.array([0, 1, 2]), answers, 1, 2)
    assert pixels(confusion_matrix(evaluation)).std() > 0.1


@pytest.mark.parametrize("epochs", [1, 3])
def test_the_curves_are_a_picture(epochs: int) -> None:
    record = {"train_loss": 1.5, "validation_loss": 1.2, "validation_accuracy": 0.5}
    history = [
        {**record, "validation_macro_f1": 0.4, "epoch": epoch + 1} for epoch in range(epochs)
    ]
    assert pixels(training_curves(history)).shape == (432, 1080, 4)


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([], []),
        ([(3.0, 0.5)], [0]),
        # The second costs more and is worse, the third costs more and is better.
        ([(1.0, 0.8), (2.0, 0.7), (3.0, 0.9)], [0, 2]),
        # By cost, not by position.
        ([(3.0, 0.9), (1.0, 0.7), (2.0, 0.8)], [1, 2, 0]),
        # As good at a higher cost, and worse at the same cost, are both beaten.
        ([(1.0, 0.8), (2.0, 0.8), (1.0, 0.7)], [0]),
        # Two alike do not beat each other.
        ([(1.0, 0.8), (1.0, 0.8), (5.0, 0.1)], [0, 1]),
        # Beaten by the last only.
        ([(2.0, 0.6), (4.0, 0.9), (1.0, 0.7)], [2, 1]),
    ],
)
def test_the_front_holds_what_no_other_beats(
    points: list[tuple[float, float]], front: list[int]
) -> None:
    assert pareto_front(points) == front


def test_the_front_of_a_comparison_needs_quality_and_time(comparison: dict[str, Any]) -> None:
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


def test_a_latency_is_found_by_device_and_batch_size(comparison: dict[str, Any]) -> None:
    feather, fp16 = comparison["rows"][:2]
    found = latency_at(feather, "cuda", 1)
    assert found is not None and found["phases"]["total"]["p50"] == pytest.approx(0.224)
    assert latency_at(fp16, "cuda", 1) is None
    assert latency_at(feather, "cpu", 256) is None


@pytest.mark.parametrize("draw", PICTURES)
def test_a_comparison_gives_a_picture_that_can_be_read(
    comparison: dict[str, Any], draw: Callable[[dict[str, Any]], bytes]
) -> None:
    image = pixels(draw(comparison))
    height, width, _ = image.shape
    assert width == 1080
    assert height >= 700
    assert image[:, :, :3].std() > 0.05


@pytest.mark.parametrize("draw", PICTURES)
@pytest.mark.parametrize("labels", AWKWARD.values(), ids=AWKWARD)
@pytest.mark.filterwarnings("ignore:Glyph", "ignore:constrained_layout")
def test_one_row_and_awkward_names_are_a_picture(
    draw: Callable[[dict[str, Any]], bytes], labels: tuple[str, ...]
) -> None:
    image = pixels(draw(small(labels, name=labels[0])))
    assert min(image.shape[:2]) >= 360
    assert image[:, :, :3].std() > 0.01


@pytest.mark.parametrize("draw", PICTURES)
def test_rows_without_figures_are_named_below_the_rest(
    draw: Callable[[dict[str, Any]], bytes],
) -> None:
    record = small(("a", "b"))
    alone = draw(record)
    empty: dict[str, Any] = {
        "scores": None,
        "per_class": None,
        "confusion_matrix": None,
        "latencies": [],
    }
    record["rows"].append({**record["rows"][0], **empty, "model": "unknown"})
    named = draw(record)
    record["rows"][1]["model"] = "another"
    assert len({alone, named, draw(record)}) == 3
    record["rows"] = record["rows"][1:]
    assert min(pixels(draw(record)).shape[:2]) >= 360


def test_the_bars_show_the_twelve_hardest_of_many_labels() -> None:
    many = small(tuple(f"class {number}" for number in range(77)))
    assert (
        pixels(per_class_bars(many)).shape
        == pixels(per_class_bars(small(tuple("abcdefghijkl")))).shape
    )
    # Of two hundred labels the twelve at 0 stand there: no bar is longer than that.
    hard = small(tuple(f"class {number}" for number in range(200)))
    colored = (np.ptp(pixels(per_class_bars(hard))[150:-60, 120:, :3], axis=2) > 0.3).sum()
    easy = (np.ptp(pixels(per_class_bars(many))[150:-60, 120:, :3], axis=2) > 0.3).sum()
    assert colored == 0
    assert easy > 0


def test_a_row_far_below_the_rest_stands_at_the_edge_and_flattens_nothing() -> None:
    record = small(("a", "b"))
    better, hopeless = (dict(record["rows"][0], model=name) for name in ("better", "hopeless"))
    better["scores"] = {"macro_f1": 0.82}
    record["rows"] += [better, hopeless]

    def upper_half(macro_f1: float) -> bytes:
        hopeless["scores"] = {"macro_f1": macro_f1}
        return pixels(trade_off(record))[:400].tobytes()

    assert upper_half(0.40) == upper_half(0.10)
    assert upper_half(0.40) != upper_half(0.42)  # more than half of the best is on the scale


def texts(figure: Figure) -> list[str]:
    """All that is written on a figure, its ticks included."""
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


def beside_a_silent_one() -> dict[str, Any]:
    """A comparison as `compare` writes it, its first row of a model that was timed only."""
    answers = Evaluation("m", "d", "test", ("a", "b"), np.array([0, 1]), np.eye(2), 1, 400_000)
    rows = [Row("silent", parameters=9, size_bytes=9), Row("answering", (answers,))]
    record = build_record(rows, ["x", "y"], "answering", 0)
    for row, ms in zip(record["rows"], (3000.0, 0.2), strict=True):
        total = {"p50": ms}
        latency = {"device": "cpu", "batch_size": 1, "noisy": False, "phases": {"total": total}}
        row["latencies"] = [latency]
    return record


@pytest.mark.parametrize(
    ("draw", "missing"),
    [
        (trade_off, "quality or CPU time"),
        (per_class_bars, "quality"),
        (confusion_matrices, "quality"),
    ],
)
def test_a_row_that_was_timed_only_is_named_below_the_others(
    draw: Callable[[dict[str, Any]], bytes], missing: str, drawn: list[Figure]
) -> None:
    record = beside_a_silent_one()
    draw(record)
    written = texts(drawn[-1])
    left_out = f"Not shown, for lack of {missing}: silent"
    assert [text for text in written if "silent" in text] == [left_out]
    assert any(text.startswith("answering") for text in written)
    del record["rows"][0]
    draw(record)
    assert not any("Not shown" in text for text in texts(drawn[-1]))


def test_a_row_that_was_timed_only_is_on_no_front() -> None:
    record = beside_a_silent_one()
    assert [row["model"] for row in trade_off_rows(record)] == ["answering"]
    assert front_models(record) == ["answering"]


def two(fast: dict[str, Any], slow: dict[str, Any]) -> dict[str, Any]:
    """A comparison of a baseline's 0.002 ms and a giant's 5 s, changed as told."""
    record = small(("a", "b"))
    (row,) = record["rows"]
    (latency,) = row["latencies"]
    times = [latency | {"phases": {"total": {"p50": ms}}} for ms in (0.002, 5000.0)]
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


def test_ticks_of_a_wide_axis_do_not_run_into_each_other(drawn: list[Figure]) -> None:
    trade_off(two({"model": "a baseline"}, {"model": "a giant"}))
    (axes,) = drawn[-1].axes
    left, right = axes.get_xlim()
    boxes = [
        label.get_window_extent()
        for label, place in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)
        if left <= place <= right
    ]
    assert len(boxes) >= 5
    assert all(one.x1 < other.x0 for one, other in itertools.pairwise(boxes))
