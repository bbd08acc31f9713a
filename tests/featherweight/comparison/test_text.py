import csv
import io
import re
from collections.abc import Callable
from typing import Any

import pytest

from featherweight.comparison import tables, text
from tests.helpers.many_classes import with_classes

LABELS = ("joy", "sadness")
BETTER = {
    "difference": 0.0123, "interval": [0.01, 0.02], "adjusted_p": 0.00123, "verdict": "better",
}  # fmt: skip
SAME = {
    "difference": -0.0005, "interval": [-0.01, 0.01], "adjusted_p": 1.0,
    "verdict": "no difference shown (n = 2000)",
}  # fmt: skip
SECTIONS = [
    "Quality on emotion, test split, n = 2,000",
    "Milliseconds per batch, end to end, p50 / p99, CPU threads: 3",
    "Against feather",
    "F1 by label",
    "Robustness: accuracy (predictions changed)",
    "Texts on which the models disagree most",
]


def timing(device: str, batch_size: int, p50: float, p99: float, **changes: Any) -> dict[str, Any]:
    return {
        "device": device, "batch_size": batch_size, "noisy": False,
        "total_ms": {"p50": p50, "p90": 0.0, "p95": 0.0, "p99": p99},
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
        row("TF-IDF", note="fitted again", latencies=[timing("cuda", 1, 0.25, 1234.5)]),
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


def cells(table: tables.Table) -> list[list[str]]:
    """The cells of a table in Markdown by row, the header first."""
    return parsed(text.render(table, "github"))


def parsed(markdown: str) -> list[list[str]]:
    """The cells of a Markdown table by row; an escaped bar does not divide a cell."""
    header, _, *rows = markdown.splitlines()
    lines = [line.strip().removeprefix("|").removesuffix("|") for line in (header, *rows)]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for line in lines]


def test_quality_has_size_and_scores_with_their_intervals() -> None:
    header, feather, classic = cells(tables.quality(record(row("classic"))))
    assert header == [
        "model", "parameters", "size MB", "accuracy", "macro F1", "macro precision",
        "macro recall", "ECE",
    ]  # fmt: skip
    assert feather == [
        "feather", "305,123", "1.236", "0.9300 [0.920, 0.950]", "0.8750 [0.865, 0.895]",
        "0.9000 [0.890, 0.920]", "0.8000 [0.790, 0.820]", "0.031",
    ]  # fmt: skip
    assert classic[1:] == feather[1:]


def test_seeds_have_number_and_deviations(full: dict[str, Any]) -> None:
    classic = cells(tables.quality(full))[2]
    assert classic[0] == "classic (2 seeds)"
    assert classic[3:5] == ["0.9300 ± 0.0100", "0.8750 ± 0.0100"]


def test_speed_has_a_column_per_device_and_batch_size(
    full: dict[str, Any],
) -> None:
    assert cells(tables.speed(full)) == [
        ["model", "CPU batch 1", "CPU batch 32", "GPU batch 1", "texts/s on CPU"],
        ["feather", "–", "–", "–", "–"],
        ["classic (2 seeds)", "0.5 / 0.75", "12.3 / 20 *", "–", "2,592"],
        ["TF-IDF", "–", "–", "0.25 / 1,230", "–"],
    ]


def test_others_are_compared_with_the_reference(full: dict[str, Any]) -> None:
    tested = ["no difference shown (n = 2000) -0.0005", "1", "better +0.0123", "0.00123"]
    assert cells(tables.against_reference(full)) == [
        [
            "model", "size ×", "speed ×, CPU batch 1", "speed ×, CPU batch 32",
            "speed ×, GPU batch 1", "accuracy", "p", "macro F1", "p",
        ],
        ["classic (2 seeds)", "0.506", "2", "0.1", "–", *tested],
        ["TF-IDF", "1", "–", "–", "–", *tested],
    ]  # fmt: skip


def test_each_label_has_its_f1(full: dict[str, Any]) -> None:
    header, feather, *_ = cells(tables.f1_by_label(full))
    assert header == ["model", "joy", "sadness"]
    assert feather == ["feather", "0.9500", "0.8000"]


def test_more_than_twelve_labels_are_rows() -> None:
    header, *rows = cells(tables.f1_by_label(with_classes(13)))
    assert header == ["label", "texts", "rising", "constant"]
    assert [row[0] for row in rows] == [f"topic {number}" for number in range(13)]
    assert cells(tables.f1_by_label(with_classes(12)))[0][:2] == ["model", "topic 0"]


@pytest.mark.parametrize("show", [text.terminal, text.markdown])
def test_of_many_labels_the_worst_and_the_best_are_shown(show: Any) -> None:
    compared = with_classes(77)
    shown = show(compared)
    assert "57 of 77 labels are not shown" in shown
    assert "--json and report.json have all" in shown
    assert shown.count("topic ") == 20
    assert max(map(len, shown.splitlines())) < 300
    assert len(compared["rows"][0]["per_class"]) == 77


def test_control_characters_do_not_reach_the_terminal(full: dict[str, Any]) -> None:
    full["disagreements"][0]["text"] = "so \x1b]0;tired\x07\n"
    shown = text.terminal(full)
    assert not set(shown) & {"\x1b", "\x07"}
    assert "so �]0;tired�" in shown


def test_robustness_has_accuracy_and_changed_predictions(full: dict[str, Any]) -> None:
    header, feather, *_ = cells(tables.robustness(full))
    assert header == ["model", "unperturbed", "upper case", "typos"]
    assert feather == ["feather", "0.9300 [0.920, 0.950]", "0.9000 (3.1%)", "0.7100 (27.0%)"]


def test_disagreements_have_the_prediction_of_each_model(full: dict[str, Any]) -> None:
    assert cells(tables.disagreements(full)) == [
        ["text", "true label", "feather", "classic", "TF-IDF"],
        ["so tired", "sadness", "joy", "sadness", "sadness"],
    ]


def test_labels_and_texts_that_look_like_numbers_are_unchanged() -> None:
    answers = {"feather": "001", "classic": "2.50"}
    item = {"text": "007", "target": "1e3", "answers": answers}
    table = tables.disagreements(record(row("classic"), disagreements=[item]))
    assert cells(table)[1] == ["007", "1e3", "001", "2.50"]


@pytest.mark.parametrize("typed", ["a|b", "one\r\ntwo", "a\\|b", "\n"])
def test_special_characters_do_not_break_a_row_of_markdown(typed: str) -> None:
    item = {"text": typed, "target": "joy", "answers": {"feather": "joy", "classic": "sadness"}}
    found = record(row("classic"), disagreements=[item] * 2)
    header, *rows = cells(tables.disagreements(found))
    assert header == ["text", "true label", "feather", "classic"]
    assert [each[1:] for each in rows] == [["joy", "joy", "sadness"]] * 2


def test_names_with_a_bar_do_not_break_a_row_of_markdown() -> None:
    found = record(row("a|b"), row("plain"))
    for table in (tables.quality, tables.against_reference, tables.f1_by_label):
        rows = cells(table(found))
        assert {len(each) for each in rows} == {len(rows[0])}


def test_long_texts_are_wrapped_for_a_terminal_and_kept_whole_in_markdown() -> None:
    typed = " ".join(["word"] * 40)
    item = {"text": typed, "target": "joy", "answers": {"feather": "joy"}}
    found = record(disagreements=[item])
    assert max(map(len, text.render(tables.disagreements(found)).splitlines())) < 80
    assert cells(tables.disagreements(found))[1][0] == typed


def titles(found: dict[str, Any]) -> list[str]:
    return [table.title for table in tables.sections(found).values()]


def test_sections_have_everything_in_the_record_and_nothing_else(full: dict[str, Any]) -> None:
    assert titles(full) == SECTIONS
    assert titles(record()) == [SECTIONS[0], SECTIONS[3]]
    assert titles(record(row("classic"))) == [SECTIONS[0], SECTIONS[2], SECTIONS[3]]


def test_legend_explains_the_signs_in_use(full: dict[str, Any]) -> None:
    lines = text.legend(full).splitlines()
    starts = ("[low, high]", "±:", "p:", "*:", "TF-IDF: fitted again")
    assert len(lines) == len(starts)
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True))
    assert text.legend(record()) == lines[0]


def test_legend_names_classes_without_a_text() -> None:
    found = record()
    found["data"]["missing_classes"] = [LABELS[0], LABELS[-1]]
    limit = f"{len(LABELS) - 2}/{len(LABELS)} = {1 - 2 / len(LABELS):.4f}."
    assert text.legend(found).splitlines()[1] == (
        f"The test split has no text of {LABELS[0]}, {LABELS[-1]}, so macro averages over all "
        f"{len(LABELS)} classes are at most {limit}"
    )


def test_terminal_shows_every_section_and_the_legend(full: dict[str, Any]) -> None:
    shown = text.terminal(full)
    sections = tables.sections(full).values()
    places = [shown.index(f"{table.title}\n\n{text.render(table)}") for table in sections]
    assert places == sorted(places)
    assert shown.endswith(text.legend(full))


def test_markdown_shows_every_section_every_row_and_the_pictures(full: dict[str, Any]) -> None:
    page = text.markdown(full)
    for title in SECTIONS:
        table = page.split(f"## {title}\n\n")[1].split("\n\n")[0]
        rows = parsed(table)
        assert {len(each) for each in rows} == {len(rows[0])}
        names = [each[0] for each in rows[1:]]
        models = ["feather", "classic (2 seeds)", "TF-IDF"]
        if title == SECTIONS[2]:
            assert names == models[1:]
        elif title != SECTIONS[-1]:
            assert names == models
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
    assert tfidf["note"] == "fitted again"
    assert float(tfidf["cuda_1_p50_ms"]) == 0.25
    for name in ("cpu_1_p50_ms", "accuracy_deviation", "macro_f1_verdict"):
        assert feather[name] == ""


def test_comma_separated_quotes_special_characters() -> None:
    name = 'a "tiny", odd\nname'
    _, quoted = csv.DictReader(io.StringIO(text.comma_separated(record(row(name)))))
    assert quoted["model"] == name


@pytest.fixture
def with_timed_only(full: dict[str, Any], timed_only: dict[str, Any]) -> dict[str, Any]:
    """The full record with a first row of a model that was only timed."""
    timed_only["latencies"] = [timing("cpu", 1, 5123.4, 10_000)]
    timed_only["ratios"] |= {"size": 1409.4, "speed": {"cpu": {"1": 0.000185}}}
    full["rows"].insert(0, timed_only)
    return full


def test_quality_of_a_timed_only_row_is_its_size_and_dashes(
    with_timed_only: dict[str, Any],
) -> None:
    _, huge, feather, *_ = cells(tables.quality(with_timed_only))
    assert huge == ["huge", "335,000,000", "1,742.000", "–", "–", "–", "–", "–"]
    assert feather[:3] == ["feather", "305,123", "1.236"]


def test_long_times_have_thousands_and_no_exponent(with_timed_only: dict[str, Any]) -> None:
    _, huge, *_ = cells(tables.speed(with_timed_only))
    assert huge == ["huge", "5,120 / 10,000", "–", "–", "0"]


def test_timed_only_row_has_ratios_and_no_verdict(with_timed_only: dict[str, Any]) -> None:
    _, huge, classic, *_ = cells(tables.against_reference(with_timed_only))
    assert huge == ["huge", "1,410", "0.000185", *["–"] * 6]
    assert classic[0] == "classic (2 seeds)"


@pytest.mark.parametrize("table", [tables.f1_by_label, tables.robustness])
def test_timed_only_row_is_left_out_where_predictions_are_needed(
    with_timed_only: dict[str, Any], table: Callable[[dict[str, Any]], tables.Table]
) -> None:
    _, *rows = cells(table(with_timed_only))
    assert [each[0] for each in rows] == ["feather", "classic (2 seeds)", "TF-IDF"]


def test_timed_only_row_is_not_a_column_of_the_disagreements(
    with_timed_only: dict[str, Any],
) -> None:
    assert cells(tables.disagreements(with_timed_only)) == [
        ["text", "true label", "feather", "classic", "TF-IDF"],
        ["so tired", "sadness", "joy", "sadness", "sadness"],
    ]


def test_robustness_is_shown_if_only_a_later_row_has_it() -> None:
    perturbed = [{"perturbation": "typos", "accuracy": 0.7, "changed": 0.25, "n": 4}]
    found = record(row("classic", robustness=perturbed))
    assert SECTIONS[4] in titles(found)
    assert cells(tables.robustness(found)) == [
        ["model", "unperturbed", "typos"],
        ["classic", "0.9300 [0.920, 0.950]", "0.7000 (25.0%)"],
    ]


def test_legend_has_the_notes(with_timed_only: dict[str, Any]) -> None:
    assert titles(with_timed_only) == SECTIONS
    assert "huge: random weights" in text.legend(with_timed_only).splitlines()
    assert "huge: random weights" in text.markdown(with_timed_only)
    assert "huge: random weights" in text.terminal(with_timed_only)


def test_comma_separated_leaves_the_cells_without_quality_empty(
    with_timed_only: dict[str, Any],
) -> None:
    huge, feather, *_ = csv.DictReader(io.StringIO(text.comma_separated(with_timed_only)))
    filled = {name: value for name, value in huge.items() if value}
    assert filled == {
        "model": "huge", "note": "random weights", "parameters": "335000000",
        "size_bytes": "1742000000", "cpu_1_p50_ms": "5123.4", "cpu_1_p99_ms": "10000",
        "cpu_1_texts_per_second": str(1000 / 5123.4), "cpu_1_noisy": "False",
    }  # fmt: skip
    assert (feather["accuracy"], feather["ece"]) == ("0.93", "0.0312")


def test_rejected_variant_is_marked_with_the_reason() -> None:
    reason = "it loses 0.0500 of validation macro-F1, 0.01 is allowed"
    found = record(row("feather (int8)", rejected=reason), row("feather (fp16)", rejected=""))
    names = [each[0] for each in cells(tables.quality(found))[1:]]
    assert names == ["feather", "feather (int8, rejected)", "feather (fp16)"]
    assert text.legend(found).splitlines()[-1] == f"feather (int8, rejected): rejected: {reason}"
    _, rejected, accepted = csv.DictReader(io.StringIO(text.comma_separated(found)))
    assert (rejected["rejected"], accepted["rejected"]) == (reason, "")


@pytest.mark.parametrize(("p", "shown"), [(0.00009, "< 0.0001"), (0.0001234, "0.000123")])
def test_small_p_values_have_no_exponent(p: float, shown: str) -> None:
    tests = dict.fromkeys(("accuracy", "macro_f1"), BETTER | {"adjusted_p": p})
    assert cells(tables.against_reference(record(row("classic", tests=tests))))[1][-1] == shown
