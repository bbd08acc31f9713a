import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featherweight.quality.evaluation import Evaluation
from featherweight.reports.reporting import (
    confusion_table,
    coverage_table,
    differences,
    draw_evaluation,
    model_card,
    one_batch_table,
    per_class_table,
    quality_table,
    report,
    write_evaluation,
)
from featherweight.run import Run
from featherweight.timing.latency import Latency

PNG = b"\x89PNG\r\n\x1a\n"
TARGETS = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
PREDICTIONS = [0, 0, 1, 2, 1, 1, 0, 2, 2, 2]


def evaluation(labels: tuple[str, ...] = ("a", "b", "c"), split: str = "test") -> Evaluation:
    probabilities = np.full((10, len(labels)), 0.0)
    probabilities[np.arange(10), PREDICTIONS] = 1
    return Evaluation(
        "tiny", "moods", split, labels, np.array(TARGETS), probabilities, 12_345, 67_890
    )


def variant(name: str = "tiny (fp16)", fixed: bool = True, size_bytes: int = 33_945) -> Evaluation:
    """The same predictions, with one wrong prediction corrected if `fixed`."""
    origin = evaluation()
    probabilities = origin.probabilities.copy()
    if fixed:
        probabilities[2] = (1, 0, 0)
    return replace(origin, model=name, probabilities=probabilities, size_bytes=size_bytes)


def latency(model: str, device: str = "cpu", ms: float = 2.0, noisy: bool = False) -> Latency:
    """Three rounds around a median of `ms`."""
    deviation = ms / 2 if noisy else 0
    total = (ms - deviation, ms, ms + deviation)
    return Latency(
        model, device, "a processor", "fp32", "torch", 3, 32, total, total, total,
        (), (7, 7, 7), (0, 1, 2), 9.0, 80.0, 1_000, None, 0.1,
    )  # fmt: skip


def cells(table: str) -> list[list[str]]:
    return [line.split() for line in table.splitlines()]


def test_table_per_class_has_the_averages_below() -> None:
    rows = cells(per_class_table(evaluation()))
    assert rows[0] == ["label", "precision", "recall", "F1", "support"]
    assert rows[2:5] == [
        ["a", "0.6667", "0.5000", "0.5714", "4"],
        ["b", "0.6667", "0.6667", "0.6667", "3"],
        ["c", "0.7500", "1.0000", "0.8571", "3"],
    ]
    assert rows[5] == ["macro", "average", "0.6944", "0.7222", "0.6984", "10"]
    assert rows[6] == ["accuracy", "0.7000", "10"]


def test_confusion_table_has_true_rows_and_predicted_columns() -> None:
    rows = cells(confusion_table(evaluation()))
    assert rows[0][-3:] == ["a", "b", "c"]
    assert rows[2:] == [["a", "2", "1", "1"], ["b", "1", "2", "0"], ["c", "0", "0", "3"]]


def test_coverage_table_has_the_accuracy_by_minimum_confidence() -> None:
    rows = cells(coverage_table(evaluation()))
    assert rows[0] == ["min", "confidence", "answered", "share", "accuracy", "of", "these"]
    # All predictions have a confidence of 1; 7 of 10 are right.
    assert rows[2] == ["0", "10", "100.0%", "0.7000", "[0.397,", "0.892]"]
    uncertain = replace(evaluation(), probabilities=np.full((10, 3), 1 / 3))
    assert cells(coverage_table(uncertain))[-1] == ["0.99", "0", "0.0%", "–"]


def many(count: int) -> Evaluation:
    """Class c has c + 1 texts; one of them is predicted as class 0."""
    targets = np.repeat(np.arange(count), np.arange(1, count + 1))
    predictions = targets.copy()
    predictions[np.cumsum(np.arange(1, count + 1)) - 1] = 0
    labels = tuple(f"topic {number}" for number in range(count))
    return Evaluation("tiny", "d", "test", labels, targets, np.eye(count)[predictions], 1, 2)


def test_table_per_class_of_many_has_the_worst_and_the_best_and_says_so() -> None:
    assert len(cells(per_class_table(many(30)))) == 30 + 4
    table, note = per_class_table(many(77)).split("\n\n")
    shown = [int(row[1]) for row in cells(table)[2:-2]]
    # Class 0 has the wrong predictions of all others; of the others, one in c + 1 is wrong.
    assert shown == [*range(10), *range(67, 77)]
    assert cells(table)[-1][-1] == str(77 * 78 // 2)
    assert note == (
        "57 of 77 labels are not shown, those between the ten lowest and the ten highest F1; "
        "--json and evaluation.json have all."
    )
    assert len(many(77).to_json()["per_class"]) == 77


def test_confusion_matrix_of_many_is_its_most_frequent_confusions() -> None:
    tested = replace(many(31), targets=np.where(many(31).targets == 30, 29, many(31).targets))
    table, note = confusion_table(tested).split("\n\n")
    header, _, first, second, *others = table.splitlines()
    assert header.split() == ["true", "label", "predicted", "instead", "texts"]
    assert first.split() == ["topic", "29", "topic", "30", "30"]
    assert second.split() == ["topic", "29", "topic", "0", "2"]
    assert len(others) == 8
    assert note.startswith("The 10 most frequent confusions of 31 labels; ")


def test_card_of_many_labels_names_the_file_that_lists_them() -> None:
    card = model_card(many(77), {"preset": "feather"}, {"splits": {}})
    assert "with 77 labels, which are in `labels.json`." in card
    assert "57 of 77 labels are not shown" in card
    assert len(card) < 4_000


def test_control_characters_of_a_label_do_not_reach_the_terminal() -> None:
    tested = evaluation(("\x1b[31mred", "two\nlines", "\u202ereversed"))
    text = report(tested)
    assert not set(text) & {"\x1b", "\u202e", "\r"}
    assert "�[31mred" in text
    assert "two lines" in text


@pytest.mark.parametrize("labels", [("0.5", "1.0", "1.5"), ("001", "002", "003"), ("1", "2", "3")])
def test_labels_that_look_like_numbers_stay_as_they_are(labels: tuple[str, ...]) -> None:
    for table in (per_class_table, confusion_table):
        assert tuple(row[0] for row in cells(table(evaluation(labels)))[2:5]) == labels


def test_quality_table_has_a_row_per_model_with_intervals() -> None:
    tested = evaluation()
    header, _, first, second = quality_table([tested, tested]).splitlines()
    assert "macro F1" in header
    assert first == second
    low, high = tested.intervals["macro_f1"]
    for cell in ("tiny", "12,345", "67.9", "0.7000", f"0.6984 [{low:.3f}, {high:.3f}]", "0.300"):
        assert cell in first


def test_quality_table_is_markdown_on_request() -> None:
    assert quality_table([evaluation()], "github").startswith("| model")


def test_report_names_model_data_split_and_number() -> None:
    text = report(evaluation(), [evaluation()])
    assert text.startswith("tiny on moods, test split, n = 10")
    assert text.count("12,345") == 2
    for part in (per_class_table, confusion_table):
        assert part(evaluation()) in text


def test_report_and_model_card_name_classes_without_a_text(tiny_run: Path) -> None:
    limit = (
        "The test split has no text of d, so macro averages over all 4 classes are at most "
        "3/4 = 0.7500."
    )
    data = Run(tiny_run).read_json("data.json")
    config = Run(tiny_run).read_json("config.json")
    found = evaluation(("a", "b", "c", "d"))
    assert limit in report(found).splitlines()
    assert limit in model_card(found, config, data).splitlines()
    assert "at most" not in report(evaluation()) + model_card(evaluation(), config, data)


def test_variant_of_equal_quality_is_reported_as_equal() -> None:
    assert differences(evaluation(), [variant(fixed=False)]) == (
        "tiny (fp16): same quality to four decimals; 50% of the size"
    )


def test_difference_in_quality_has_its_sign() -> None:
    # Before: precision 2/3, 2/3, 3/4; recall 1/2, 2/3, 1; F1 4/7, 2/3, 6/7.
    # After:  precision 3/4, 1, 3/4; recall 3/4, 2/3, 1; F1 3/4, 4/5, 6/7.
    assert differences(evaluation(), [variant()]) == (
        "tiny (fp16): accuracy +0.1000, macro f1 +0.1040, macro precision +0.1389, "
        "macro recall +0.0833, weighted f1 +0.1114; 50% of the size"
    )
    (line,) = differences(variant(), [replace(evaluation(), model="x")]).splitlines()
    assert line == (
        "x: accuracy -0.1000, macro f1 -0.1040, macro precision -0.1389, "
        "macro recall -0.0833, weighted f1 -0.1114; 200% of the size"
    )


def test_each_variant_has_a_line() -> None:
    lines = differences(evaluation(), [variant("a"), variant("b")]).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["a", "b"]


def test_table_of_one_batch_has_a_dash_where_there_is_no_gpu() -> None:
    latencies = [
        latency("one", ms=12.345),
        latency("two", ms=0.5, noisy=True),
        latency("one", "cuda", 0.25),
    ]
    header, _, *rows = cells(one_batch_table(latencies))
    assert header == ["model", "GPU", "CPU"]
    assert rows == [["one", "0.25", "12.3"], ["two", "–", "0.5", "*"]]


def test_report_shows_variants_and_times() -> None:
    latencies = [latency("tiny"), latency("tiny (fp16)")]
    others = [variant(fixed=False), replace(evaluation(), model="most frequent class")]
    text = report(evaluation(), others, latencies)
    assert quality_table([evaluation(), *others]) in text
    assert differences(evaluation(), others[:1]) in text
    assert "most frequent class:" not in text
    title = "ms per one batch of size 32, texts to labels, median (CPU threads: 3)"
    assert f"{title}\n\n{one_batch_table(latencies)}" in text
    assert "noisy" not in text
    assert "noisy" in report(evaluation(), others, [latency("tiny", noisy=True)])


def test_report_without_times_has_no_table_of_times() -> None:
    assert "ms per" not in report(evaluation(), [variant()])


def test_report_says_why_a_variant_was_rejected() -> None:
    (first, *_) = report(variant(), rejected="it is too slow").splitlines()
    assert first == "tiny (fp16) on moods, test split, n = 10 (rejected: it is too slow)"


def test_model_card_warns_if_the_split_chose_the_checkpoint() -> None:
    data = {"splits": {"train": {"n": 2500, "sha256": "abc"}, "test": {"n": 10, "sha256": "def"}}}
    config = {"preset": "feather", "seed": 3}
    test_card = model_card(evaluation(), config, data)
    assert test_card.startswith("# tiny\n")
    for part in ("a, b, c", "12,345", "seed 3", "| train | 2,500 | `abc` |", "`moods`", "0.6984"):
        assert part in test_card
    assert "optimistic" not in test_card
    assert "bootstrap intervals.\n\n| model " in test_card  # a table has a blank line before it
    assert "optimistic" in model_card(evaluation(split="validation"), config, data)


@pytest.mark.parametrize(
    ("labels", "kind"), [(("a", "b", "c"), "name"), (("joy", "anger", "Fear"), "emotion")]
)
def test_evaluation_is_written_into_its_run(
    tiny_run: Path, tmp_path: Path, labels: tuple[str, ...], kind: str
) -> None:
    run = Run(tmp_path / "tiny")
    shutil.copytree(tiny_run, run.path)
    tested = evaluation(labels)
    write_evaluation(run, tested, ["=1+1", "a,b", 'say "no"', *"defghij"])

    assert not run.file("confusion_matrix.png").exists()  # it would be that of older predictions
    draw_evaluation(run, tested)
    assert run.read_json("evaluation.json") == json.loads(json.dumps(tested.to_json()))
    with run.file("predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "text", "label", kind, "predicted_label", f"predicted_{kind}", "confidence",
    ]  # fmt: skip
    assert [row["text"] for row in rows[:3]] == ["'=1+1", "a,b", 'say "no"']
    assert [int(row["label"]) for row in rows] == TARGETS
    assert [int(row["predicted_label"]) for row in rows] == PREDICTIONS
    assert rows[2][kind] == labels[0]
    assert rows[2][f"predicted_{kind}"] == labels[1]
    assert run.file("confusion_matrix.png").read_bytes().startswith(PNG)
    assert run.file("README.md").read_text(encoding="utf-8").startswith("# tiny\n")


def test_model_card_of_a_variant_names_method_and_origin() -> None:
    data = {"splits": {"train": {"n": 2500, "sha256": "abc"}}}
    config = {"preset": "feather", "seed": 3, "epochs": 5}
    compression = {
        "method": "int8", "origin": {"name": "tiny"}, "ratio": 0.25, "gain": "size only",
        "size_bytes": {"before": 4000, "after": 1000}, "rejected": "",
    }  # fmt: skip
    card = model_card(evaluation(), config, data, compression)
    assert "The run `tiny`, compressed by `int8`" in card
    assert "1.0 KB after 4.0 KB (25%). The gain: size only." in card
    assert "Rejected" not in card
    assert "training_curves.png" not in card  # it has none
    rejected = model_card(evaluation(), config, data, compression | {"rejected": "it loses 0.1"})
    assert "Rejected: it loses 0.1." in rejected
    plain = model_card(evaluation(), config, data)
    assert "## Compression" not in plain
    assert "training_curves.png" in plain
