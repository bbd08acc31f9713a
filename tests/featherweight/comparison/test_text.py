import csv
import io
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from featherweight.comparison import text as text
from featherweight.comparison.record import Row, build_record
from featherweight.quality.evaluation import Evaluation

LABELS = ("joy", "sadness")
BETTER = {"difference": 0.0123, "adjusted_p": 0.00123, "verdict": "better"}
SAME = {"difference": -0.0005, "adjusted_p": 1.0, "verdict": "no difference shown (n = 2000)"}
SECTIONS = [
    "Quality on emotion, test split, n = 2,000",
    "Milliseconds per batch, end to end, p50 / p99, CPU threads: 3",
    "Against feather",
    "F1 by class",
    "Accuracy as people type (answers changed)",
    "Where they disagree most",
]


def timing(device: str, batch_size: int, p50: float, p99: float, **changes: Any) -> dict[str, Any]:
    return {
        "device": device, "batch_size": batch_size, "noisy": False,
        "phases": {"total": {"p50": p50, "p90": 0.0, "p95": 0.0, "p99": p99}},
        "texts_per_second": 1000 * batch_size / p50,
    } | changes  # fmt: skip


def row(model: str, **changes: Any) -> dict[str, Any]:
    scores = {"accuracy": 0.93, "macro_f1": 0.875, "macro_precision": 0.9, "macro_recall": 0.8}
    return {
        "model": model, "members": [model], "note": "", "parameters": 305_123,
        "size_bytes": 1_236_000, "ece": 0.0312,
        "scores": scores | {"weighted_f1": 0.92}, "deviations": None,
        "intervals": {name: [score - 0.01, score + 0.02] for name, score in scores.items()},
        "per_class": {"joy": {"f1": 0.95}, "sadness": {"f1": 0.8}},
        "latencies": [],
        "ratios": {"size": 1.0, "accuracy": 1.0, "macro_f1": 1.0, "speed": {}},
        "tests": {"accuracy": SAME, "macro_f1": BETTER}, "robustness": [],
    } | changes  # fmt: skip


def record(*rows: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "reference": "feather",
        "data": {"name": "emotion", "split": "test", "n": 2000, "labels": list(LABELS)},
        "command": "featherweight compare a b",
        "environment": {"cpu": {"model": "a processor", "flags": []}},
        "threads": 3,
        "rows": [row("feather", tests=None), *rows],
        "disagreements": [],
    } | changes


@pytest.fixture
def full() -> dict[str, Any]:
    """A record that fills every section."""
    seeds = row(
        "classic",
        members=["classic-0", "classic-1"],
        deviations=dict.fromkeys(("accuracy", "macro_f1", "macro_precision", "macro_recall"), 0.01)
        | {"weighted_f1": 0.03},
        latencies=[timing("cpu", 32, 12.345, 20.0, noisy=True), timing("cpu", 1, 0.5, 0.75)],
        ratios={
            "size": 0.5061,
            "accuracy": 1,
            "macro_f1": 1,
            "speed": {"cpu": {"1": 2, "32": 0.1}},
        },
    )
    found = record(
        seeds,
        row("TF-IDF", note="fitted anew", latencies=[timing("cuda", 1, 0.25, 1234.5)]),
        disagreements=[
            {"text": "so tired", "target": "sadness",
             "answers": {"feather": "joy", "classic": "sadness", "TF-IDF": "sadness"}},
        ],
    )  # fmt: skip
    for each in found["rows"]:
        each["robustness"] = [
            {"perturbation": "upper case", "accuracy": 0.9, "changed": 0.0314, "n": 2000},
            {"perturbation": "typos", "accuracy": 0.71, "changed": 0.27, "n": 2000},
        ]
    return found


def cells(table: str) -> list[list[str]]:
    """The cells of a Markdown table by row, the header first; no bar in a cell divides it."""
    header, _, *rows = table.splitlines()
    lines = [line.strip().removeprefix("|").removesuffix("|") for line in (header, *rows)]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for line in lines]


def test_quality_has_size_and_scores_with_their_intervals() -> None:
    header, feather, classic = cells(text.quality(record(row("classic")), "github"))
    assert header == [
        "model", "parameters", "size MB", "accuracy", "macro F1", "macro precision",
        "macro recall", "ECE",
    ]  # fmt: skip
    assert feather == [
        "feather", "305,123", "1.236", "0.9300 [0.920, 0.950]", "0.8750 [0.865, 0.895]",
        "0.9000 [0.890, 0.920]", "0.8000 [0.790, 0.820]", "0.031",
    ]  # fmt: skip
    assert classic[1:] == feather[1:]


def test_seeds_have_their_number_and_deviations(full: dict[str, Any]) -> None:
    classic = cells(text.quality(full, "github"))[2]
    assert classic[0] == "classic (2 seeds)"
    assert classic[3:5] == ["0.9300 ± 0.0100", "0.8750 ± 0.0100"]


def test_speed_has_a_column_a_place_and_a_dash_where_nothing_was_timed(
    full: dict[str, Any],
) -> None:
    assert cells(text.speed(full, "github")) == [
        ["model", "cpu batch 1", "cpu batch 32", "cuda batch 1", "texts/s on CPU"],
        ["feather", "–", "–", "–", "–"],
        ["classic (2 seeds)", "0.5 / 0.75", "12.3 / 20 *", "–", "2,592"],
        ["TF-IDF", "–", "–", "0.25 / 1,230", "–"],
    ]


def test_the_others_are_set_against_the_reference(full: dict[str, Any]) -> None:
    assert cells(text.against_reference(full, "github")) == [
        ["model", "size ×", "faster × on CPU (batch)", "accuracy", "p", "macro F1", "p"],
        [
            "classic (2 seeds)", "0.506", "2.00 (1), 0.10 (32)",
            "-0.0005 no difference shown (n = 2000)", "1", "+0.0123 better", "0.00123",
        ],
        [
            "TF-IDF", "1", "–",
            "-0.0005 no difference shown (n = 2000)", "1", "+0.0123 better", "0.00123",
        ],
    ]  # fmt: skip


def test_each_class_has_its_f1(full: dict[str, Any]) -> None:
    header, feather, *_ = cells(text.per_class(full, "github"))
    assert header == ["F1", "joy", "sadness"]
    assert feather == ["feather", "0.9500", "0.8000"]


def test_robustness_has_accuracy_and_what_changed(full: dict[str, Any]) -> None:
    header, feather, *_ = cells(text.robustness(full, "github"))
    assert header == ["model", "upper case", "typos"]
    assert feather == ["feather", "0.9000 (3.1%)", "0.7100 (27.0%)"]


def test_disagreements_have_the_answer_of_each(full: dict[str, Any]) -> None:
    assert cells(text.disagreements(full, "github")) == [
        ["text", "true", "feather", "classic", "TF-IDF"],
        ["so tired", "sadness", "joy", "sadness", "sadness"],
    ]


def test_labels_and_texts_that_look_like_numbers_stay_as_they_are() -> None:
    answers = {"feather": "001", "classic": "2.50"}
    item = {"text": "007", "target": "1e3", "answers": answers}
    table = text.disagreements(record(row("classic"), disagreements=[item]), "github")
    assert cells(table)[1] == ["007", "1e3", "001", "2.50"]


@pytest.mark.parametrize("typed", ["a|b", "one\ntwo", "one\r\ntwo", "|", "a\\|b", "\n"])
def test_what_people_type_does_not_break_a_row_of_markdown(typed: str) -> None:
    item = {"text": typed, "target": "joy", "answers": {"feather": "joy", "classic": "sadness"}}
    found = record(row("classic"), disagreements=[item] * 2)
    header, *rows = cells(text.disagreements(found, "github"))
    assert header == ["text", "true", "feather", "classic"]
    assert [each[1:] for each in rows] == [["joy", "joy", "sadness"]] * 2


def test_names_with_a_bar_do_not_break_a_row_of_markdown() -> None:
    found = record(row("a|b"), row("plain"))
    for table in (text.quality, text.against_reference, text.per_class):
        rows = cells(table(found, "github"))
        assert {len(each) for each in rows} == {len(rows[0])}


def test_long_texts_are_wrapped_for_a_terminal_and_kept_whole_in_markdown() -> None:
    typed = " ".join(["word"] * 40)
    item = {"text": typed, "target": "joy", "answers": {"feather": "joy"}}
    found = record(disagreements=[item])
    assert max(map(len, text.disagreements(found).splitlines())) < 80
    assert cells(text.disagreements(found, "github"))[1][0] == typed


def test_sections_show_all_that_the_record_holds(full: dict[str, Any]) -> None:
    assert [title for title, _ in text.sections(full)] == SECTIONS


def test_sections_leave_out_what_the_record_does_not_hold() -> None:
    assert [title for title, _ in text.sections(record())] == [SECTIONS[0], SECTIONS[3]]
    titles = [title for title, _ in text.sections(record(row("classic")))]
    assert titles == [SECTIONS[0], SECTIONS[2], SECTIONS[3]]


def test_the_legend_explains_the_signs_that_are_there(full: dict[str, Any]) -> None:
    lines = text.legend(full).splitlines()
    starts = ("[low, high]", "±:", "p:", "*:", "TF-IDF: fitted anew")
    assert len(lines) == len(starts)
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True))
    assert text.legend(record()) == lines[0]


def test_a_terminal_shows_every_section_and_the_legend(full: dict[str, Any]) -> None:
    shown = text.terminal(full)
    places = [shown.index(f"{title}\n\n{table}") for title, table in text.sections(full)]
    assert places == sorted(places)
    assert shown.endswith(text.legend(full))


def test_markdown_shows_every_section_every_row_and_the_pictures(full: dict[str, Any]) -> None:
    page = text.markdown(full)
    for title in SECTIONS:
        table = page.split(f"## {title}\n\n")[1].split("\n\n")[0]
        rows = cells(table)
        assert {len(each) for each in rows} == {len(rows[0])}
        names = [each[0] for each in rows[1:]]
        everyone = ["feather", "classic (2 seeds)", "TF-IDF"]
        if title.startswith("Against"):
            assert names == everyone[1:]
        elif not title.startswith("Where"):
            assert names == everyone
    for picture in ("trade_off", "confusion_matrices", "per_class"):
        assert f"({picture}.png)" in page
    assert "Measured with `featherweight compare a b` on a processor." in page
    for line in text.legend(full).splitlines():
        assert line in page


def test_comma_separated_has_a_column_for_every_figure(full: dict[str, Any]) -> None:
    feather, classic, tfidf = csv.DictReader(io.StringIO(text.comma_separated(full)))
    assert [each["model"] for each in (feather, classic, tfidf)] == ["feather", "classic", "TF-IDF"]
    assert {name: classic[name] for name in ("parameters", "size_bytes", "ece")} == {
        "parameters": "305123", "size_bytes": "1236000", "ece": "0.0312",
    }  # fmt: skip
    expected = {
        "accuracy": 0.93, "accuracy_low": 0.92, "accuracy_high": 0.95, "accuracy_deviation": 0.01,
        "macro_f1": 0.875, "weighted_f1": 0.92, "weighted_f1_deviation": 0.03,
        "cpu_1_p50_ms": 0.5, "cpu_1_p99_ms": 0.75, "cpu_32_p50_ms": 12.345,
        "cpu_1_texts_per_second": 2000, "accuracy_difference": -0.0005, "accuracy_adjusted_p": 1,
        "macro_f1_difference": 0.0123, "accuracy_upper_case": 0.9, "accuracy_typos": 0.71,
    }  # fmt: skip
    assert {name: float(classic[name]) for name in expected} == pytest.approx(expected)
    assert (classic["cpu_32_noisy"], classic["cpu_1_noisy"]) == ("True", "False")
    assert classic["macro_f1_verdict"] == "better"
    assert tfidf["note"] == "fitted anew"
    assert float(tfidf["cuda_1_p50_ms"]) == 0.25
    for name in ("cpu_1_p50_ms", "accuracy_deviation", "macro_f1_verdict"):
        assert feather[name] == ""


def test_comma_separated_quotes_what_has_to_be_quoted() -> None:
    name = 'a "tiny", odd\nname'
    _, odd = csv.DictReader(io.StringIO(text.comma_separated(record(row(name)))))
    assert odd["model"] == name


@pytest.fixture
def silent(full: dict[str, Any]) -> dict[str, Any]:
    """The full record, and before all its rows one of a model that was timed only."""
    answered = Evaluation("one", "d", "test", LABELS, np.array([0, 1]), np.eye(2), 1, 4)
    only_timed = Row(
        "huge", note="random weights", parameters=335_000_000, size_bytes=1_742_000_000
    )
    _, empty = build_record([Row("one", (answered,)), only_timed], ["a", "b"], "one", 0)["rows"]
    empty["latencies"] = [timing("cpu", 1, 5123.4, 10_000)]
    empty["ratios"] |= {"size": 1409.4, "speed": {"cpu": {"1": 0.000185}}}
    full["rows"].insert(0, empty)
    return full


def test_quality_of_a_row_without_answers_is_its_size_and_dashes(silent: dict[str, Any]) -> None:
    _, huge, feather, *_ = cells(text.quality(silent, "github"))
    assert huge == ["huge", "335,000,000", "1,742.000", "–", "–", "–", "–", "–"]
    assert feather[:3] == ["feather", "305,123", "1.236"]


def test_long_times_have_thousands_and_no_exponent(silent: dict[str, Any]) -> None:
    _, huge, *_ = cells(text.speed(silent, "github"))
    assert huge == ["huge", "5,120 / 10,000", "–", "–", "0"]


def test_a_row_without_answers_has_ratios_and_no_verdict(silent: dict[str, Any]) -> None:
    _, huge, classic, *_ = cells(text.against_reference(silent, "github"))
    assert huge == ["huge", "1,410", "0.000185 (1)", "–", "–", "–", "–"]
    assert classic[0] == "classic (2 seeds)"


@pytest.mark.parametrize("table", [text.per_class, text.robustness])
def test_a_row_without_answers_is_no_row_of_what_answers_are_needed_for(
    silent: dict[str, Any], table: Callable[[dict[str, Any], str], str]
) -> None:
    _, *rows = cells(table(silent, "github"))
    assert [each[0] for each in rows] == ["feather", "classic (2 seeds)", "TF-IDF"]


def test_a_row_without_answers_is_no_column_of_the_disagreements(silent: dict[str, Any]) -> None:
    assert cells(text.disagreements(silent, "github")) == [
        ["text", "true", "feather", "classic", "TF-IDF"],
        ["so tired", "sadness", "joy", "sadness", "sadness"],
    ]


def test_robustness_of_one_row_is_shown_though_the_first_has_none() -> None:
    perturbed = [{"perturbation": "typos", "accuracy": 0.7, "changed": 0.25, "n": 4}]
    found = record(row("classic", robustness=perturbed))
    assert SECTIONS[4] in [title for title, _ in text.sections(found)]
    assert cells(text.robustness(found, "github")) == [
        ["model", "typos"],
        ["classic", "0.7000 (25.0%)"],
    ]


def test_every_section_stays_and_the_legend_holds_the_note(silent: dict[str, Any]) -> None:
    assert [title for title, _ in text.sections(silent)] == SECTIONS
    assert "huge: random weights" in text.legend(silent).splitlines()
    assert "huge: random weights" in text.markdown(silent)
    assert "huge: random weights" in text.terminal(silent)


def test_comma_separated_leaves_the_cells_without_quality_empty(silent: dict[str, Any]) -> None:
    huge, feather, *_ = csv.DictReader(io.StringIO(text.comma_separated(silent)))
    filled = {name: value for name, value in huge.items() if value}
    assert filled == {
        "model": "huge", "note": "random weights", "parameters": "335000000",
        "size_bytes": "1742000000", "cpu_1_p50_ms": "5123.4", "cpu_1_p99_ms": "10000",
        "cpu_1_texts_per_second": str(1000 / 5123.4), "cpu_1_noisy": "False",
    }  # fmt: skip
    assert (feather["accuracy"], feather["ece"]) == ("0.93", "0.0312")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.9541, "0.954"), (12.34, "12.3"), (1739.6, "1,740"), (0.5, "0.5"), (20.0, "20"),
        (0.0, "0"), (999.6, "1,000"), (9.999, "10"), (0.000012345, "0.0000123"),
        (12_345_678, "12,300,000"), (-1739.6, "-1,740"),
    ],
)  # fmt: skip
def test_three_digits_are_kept_and_no_exponent_is_written(value: float, shown: str) -> None:
    assert text.three_digits(value) == shown


def test_a_ratio_of_speed_has_two_decimals_or_three_digits_where_they_would_be_lost() -> None:
    speed = {"1": 592.3412, "32": 0.1, "256": 0.0999}
    ratios = {"size": 0.5, "accuracy": 1, "macro_f1": 1, "speed": {"cpu": speed}}
    (_, classic) = cells(text.against_reference(record(row("classic", ratios=ratios)), "github"))
    assert classic[2] == "592.34 (1), 0.10 (32), 0.0999 (256)"
