import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from featherweight.comparison.record import (
    Row,
    build_record,
    disagreements,
    latency_at,
    model_name,
)
from featherweight.errors import UsageError
from featherweight.quality.evaluation import Evaluation
from featherweight.quality.robustness import Robustness
from featherweight.quality.significance import compare_groups
from featherweight.timing.latency import Latency

LABELS = ("a", "b", "c")
TARGETS = (0, 0, 1, 1, 2, 2)
TEXTS = tuple(f"text {number}" for number in range(6))
METRICS = ("accuracy", "macro_f1")


def evaluation(
    model: str, predictions: Sequence[int], targets: Sequence[int] = TARGETS, **changes: Any
) -> Evaluation:
    return _evaluation(model, tuple(predictions), tuple(targets), **changes)


@cache  # an evaluation keeps its bootstrap intervals
def _evaluation(
    model: str, predictions: tuple[int, ...], targets: tuple[int, ...], **changes: Any
) -> Evaluation:
    labels = changes.pop("labels", LABELS)
    probabilities = np.full((len(predictions), len(labels)), 0.1)
    probabilities[np.arange(len(predictions)), predictions] = 1 - 0.1 * (len(labels) - 1)
    values = {"data": "moods", "split": "test", "parameters": 100, "size_bytes": 400} | changes
    return Evaluation(
        model, labels=labels, targets=np.array(targets), probabilities=probabilities, **values
    )


def row(model: str, predictions: Sequence[int], *latencies: Latency, **changes: Any) -> Row:
    return Row(model, (evaluation(model, predictions, **changes),), latencies)


def seeds(model: str, *predictions: Sequence[int], **changes: Any) -> Row:
    members = [
        evaluation(f"{model}-{number}", one, **changes) for number, one in enumerate(predictions)
    ]
    return Row(model, tuple(members))


def latency(model: str, total_ms: Sequence[float], **changes: Any) -> Latency:
    """Encoding takes a quarter of the total."""
    values: dict[str, Any] = {
        "device": "cpu", "device_name": "a processor", "dtype": "fp32", "backend": "torch",
        "threads": 1, "batch_size": 1, "event_ms": (), "tokens": (5,) * len(total_ms),
        "rounds": (0,) * len(total_ms), "first_batch_ms": 9.0, "load_ms": 80.0,
        "peak_memory_bytes": 1_000, "gpu_memory_bytes": None, "load_average": 0.1,
    }  # fmt: skip
    return Latency(
        model=model,
        encode_ms=tuple(ms / 4 for ms in total_ms),
        forward_ms=tuple(3 * ms / 4 for ms in total_ms),
        total_ms=tuple(total_ms),
        **values | changes,
    )


def compared(*rows: Row, reference: str = "") -> dict[str, dict[str, Any]]:
    record = build_record(rows, TEXTS, reference or rows[0].model, 0)
    return {row["model"]: row for row in record["rows"]}


def many(wrong: int) -> tuple[list[int], list[int], list[int]]:
    """Targets of 2,000 texts, predictions of which 200 are wrong, and a copy with more wrong."""
    targets = [number % 3 for number in range(2000)]
    predictions = [*targets[:1800], *((target + 1) % 3 for target in targets[1800:])]
    copy = [*((target + 1) % 3 for target in targets[:wrong]), *predictions[wrong:]]
    return targets, predictions, copy


def test_two_copies_of_a_model_show_no_difference() -> None:
    targets, predictions, copy = many(wrong=0)
    rows = [row("one", predictions, targets=targets), row("copy", copy, targets=targets)]
    found = build_record(rows, ["x"] * 2000, "one", 0)["rows"][1]
    for metric in METRICS:
        test = found["tests"][metric]
        assert test["verdict"] == "no difference shown (n = 2000)"
        assert (test["difference"], test["interval"], test["adjusted_p"]) == (0, [0, 0], 1)
    assert found["scores"]["accuracy"] == 0.9


@pytest.mark.parametrize(
    ("reference", "verdict", "sign"), [("one", "worse", -1), ("changed", "better", 1)]
)
def test_copy_with_a_twentieth_of_its_predictions_changed_is_worse(
    reference: str, verdict: str, sign: int
) -> None:
    targets, predictions, copy = many(wrong=100)
    rows = [row("one", predictions, targets=targets), row("changed", copy, targets=targets)]
    record = build_record(rows, ["x"] * 2000, reference, 0)
    (tests,) = [each["tests"] for each in record["rows"] if each["tests"]]
    assert [tests[metric]["verdict"] for metric in METRICS] == [verdict, verdict]
    assert tests["accuracy"]["difference"] == pytest.approx(sign * 0.05)
    low, high = tests["accuracy"]["interval"]
    assert low < sign * 0.05 < high
    # On all 100 texts where only one of the two is right, it is the same one.
    assert tests["accuracy"]["p_value"] == pytest.approx(2 * 0.5**100)


def test_comparison_is_reproducible_to_the_digit() -> None:
    targets, predictions, copy = many(wrong=30)
    rows = [
        row("one", predictions, targets=targets),
        row("copy", copy, targets=targets),
        seeds("seeds", predictions, copy, targets=targets),
    ]
    first, second = (json.dumps(build_record(rows, ["x"] * 2000, "one", 5)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "other"}, "data moods and other"),
        ({"split": "validation"}, "split test and validation"),
        ({"labels": ("a", "b", "d")}, "labels a, b, c and a, b, d"),
        ({"labels": ("a", "c", "b")}, "labels a, b, c and a, c, b"),
        ({"targets": (0, 0, 1, 1, 2, 1)}, "different texts"),
        ({"targets": (0, 0, 1, 1, 2)}, "different texts"),
    ],
)
def test_incomparable_evaluations_are_refused_with_the_reason(
    changes: dict[str, Any], message: str
) -> None:
    predictions = TARGETS[: len(changes.get("targets", TARGETS))]
    other = evaluation("other", predictions, **changes)
    first = Row("reference", (evaluation("reference", TARGETS),))
    for last in (Row("other", (other,)), Row("mixed", (evaluation("good", TARGETS), other))):
        with pytest.raises(UsageError, match=message) as caught:
            build_record([first, last], TEXTS, "reference", 0)
        assert "\n" not in str(caught.value)
        assert {"reference", "other"} <= set(str(caught.value).split())


def test_rows_with_equal_names_are_refused() -> None:
    with pytest.raises(UsageError, match="same name"):
        compared(row("one", TARGETS), row("one", TARGETS))


def test_unknown_reference_is_refused_with_the_choices() -> None:
    with pytest.raises(UsageError, match=r"--reference unknown: choose one of one, two"):
        compared(row("one", TARGETS), row("two", TARGETS), reference="unknown")


def test_record_describes_the_comparison() -> None:
    record = build_record([row("one", TARGETS), row("two", TARGETS)], TEXTS, "two", 0)
    assert record["reference"] == "two"
    assert record["data"] == {
        "name": "moods", "split": "test", "n": 6, "labels": ["a", "b", "c"], "missing_classes": [],
    }  # fmt: skip
    assert [each["model"] for each in record["rows"]] == ["one", "two"]
    assert record["disagreements"] == []


def test_record_is_plain_json() -> None:
    rows = [row("one", TARGETS, latency("one", (1, 2))), seeds("two", TARGETS, (0,) * 6)]
    record = build_record(rows, TEXTS, "one", 6)
    assert json.loads(json.dumps(record)) == record


def test_single_row_is_not_tested() -> None:
    found = compared(row("one", (0, 0, 1, 1, 2, 0)))
    assert found["one"]["tests"] is None
    assert found["one"]["ratios"]["size"] == 1


def test_figures_of_a_row_are_those_of_its_evaluation() -> None:
    # Right: a twice, b once, c twice; the wrong b was predicted as c.
    # Precision 1, 1, 2/3; recall 1, 1/2, 1; F1 1, 2/3, 4/5.
    predictions = (0, 0, 1, 2, 2, 2)
    found = compared(row("one", predictions, parameters=7, size_bytes=99))["one"]
    assert found["members"] == ["one"]
    assert (found["parameters"], found["size_bytes"], found["note"]) == (7, 99, "")
    assert found["deviations"] is None
    assert found["scores"] == pytest.approx(
        {
            "accuracy": 5 / 6,
            "macro_f1": (1 + 2 / 3 + 4 / 5) / 3,
            "macro_precision": (1 + 1 + 2 / 3) / 3,
            "macro_recall": (1 + 1 / 2 + 1) / 3,
            "weighted_f1": (1 + 2 / 3 + 4 / 5) / 3,
        }
    )
    # Each prediction has a confidence of 0.8, and five in six are right.
    assert found["ece"] == pytest.approx(5 / 6 - 0.8)
    assert found["confusion_matrix"] == [[2, 0, 0], [0, 1, 1], [0, 0, 2]]
    assert found["per_class"]["b"] == pytest.approx(
        {"precision": 1, "recall": 0.5, "f1": 2 / 3, "support": 2}
    )
    intervals = evaluation("one", predictions).intervals
    assert {name: tuple(ends) for name, ends in found["intervals"].items()} == intervals
    for metric, (low, high) in found["intervals"].items():
        assert low < found["scores"][metric] <= high


def test_seeds_are_one_row_with_mean_and_deviation() -> None:
    # Accuracies 1, 5/6 and 1/2, their mean 7/9, and deviations from it 2/9, 1/18 and -5/18.
    predictions = [TARGETS, (0, 0, 1, 1, 2, 0), (0, 1, 1, 0, 2, 0)]
    found = compared(row("one", TARGETS), seeds("three", *predictions))["three"]
    assert found["members"] == ["three-0", "three-1", "three-2"]
    assert found["scores"]["accuracy"] == pytest.approx(7 / 9)
    deviation = ((4**2 + 1**2 + 5**2) / 18**2 / 2) ** 0.5
    assert found["deviations"]["accuracy"] == pytest.approx(deviation)
    assert set(found["deviations"]) == set(found["scores"])
    members = [evaluation("x", one) for one in predictions]
    for name, ends in found["intervals"].items():
        for end in (0, 1):
            assert ends[end] == pytest.approx(
                np.mean([one.intervals[name][end] for one in members])
            )
    assert found["ece"] == pytest.approx(np.mean([one.ece for one in members]))
    assert found["confusion_matrix"] == [[2, 0, 0], [0, 2, 0], [0, 0, 2]]


def test_seeds_are_tested_by_their_means() -> None:
    predictions = [(0, 0, 1, 1, 2, 0), (0, 1, 1, 0, 2, 0)]
    found = compared(seeds("two", TARGETS, TARGETS), seeds("others", *predictions))["others"]
    assert found["tests"]["accuracy"]["difference"] == pytest.approx(4 / 6 - 1)
    targets, members = np.array(TARGETS), [np.array(one) for one in predictions]
    for metric in METRICS:
        alone = compare_groups(targets, [targets, targets], members, 3, metric)  # type: ignore[arg-type]
        assert found["tests"][metric]["p_value"] == alone.p_value
        assert found["tests"][metric]["interval"] == list(alone.interval)


def test_tests_are_corrected_over_all_rows_and_both_metrics() -> None:
    targets, predictions, _ = many(wrong=0)
    rows = [row("one", predictions, targets=targets)]
    rows += [row(str(n), many(wrong=n)[2], targets=targets) for n in (4, 8, 12)]
    found = build_record(rows, ["x"] * 2000, "one", 0)["rows"]
    assert found[0]["tests"] is None
    tests = [each["tests"][metric] for each in found[1:] for metric in METRICS]
    # Holm: the smallest of six counts six times, the next five times, and none falls below
    # the one before.
    expected, floor = {}, 0.0
    for rank, p in enumerate(sorted(test["p_value"] for test in tests)):
        floor = max(floor, min(1.0, (6 - rank) * p))
        expected[p] = floor
    assert len({test["p_value"] for test in tests}) > 3
    for test in tests:
        assert test["adjusted_p"] == pytest.approx(expected[test["p_value"]])


def test_ratios_are_relative_to_the_reference() -> None:
    big = row("big", TARGETS, latency("big", (4, 4, 4)), latency("big", (40,), batch_size=32))
    small = row(
        "small", (0, 0, 1, 2, 2, 2), latency("small", (1, 2, 9)),
        latency("small", (3,), device="cuda"), size_bytes=100,
    )  # fmt: skip
    found = compared(big, small)
    ratios = found["small"]["ratios"]
    assert ratios["size"] == 0.25
    assert ratios["accuracy"] == pytest.approx(5 / 6)
    assert ratios["macro_f1"] == pytest.approx((1 + 2 / 3 + 4 / 5) / 3)
    # Of the medians; batches of 32 and the GPU were not timed for both.
    assert ratios["speed"] == {"cpu": {"1": 2.0}}
    assert found["big"]["ratios"] == {
        "size": 1, "accuracy": 1, "macro_f1": 1, "speed": {"cpu": {"1": 1, "32": 1}},
    }  # fmt: skip


def test_reference_that_is_never_right_can_be_compared_with() -> None:
    found = compared(row("never", (1, 1, 2, 2, 0, 0)), row("always", TARGETS))
    assert found["always"]["tests"]["accuracy"]["difference"] == 1
    json.dumps(found, allow_nan=False)


def test_timings_carry_the_percentiles_of_each_phase() -> None:
    times = latency("one", (4, 8, 12, 16, 20), batch_size=32, dtype="fp16")
    (timing,) = compared(row("one", TARGETS, times))["one"]["latencies"]
    # Five samples are 25 % apart: 90 % is 60 % of the way from the fourth to the fifth.
    assert timing["total_ms"] == pytest.approx({"p50": 12, "p90": 18.4, "p95": 19.2, "p99": 19.84})
    assert timing["encode_ms"]["p50"] == 3
    assert timing["forward_ms"]["p50"] == 9
    assert timing["texts_per_second"] == pytest.approx(32 / 0.012)
    assert (timing["device"], timing["batch_size"], timing["samples"]) == ("cpu", 32, 5)
    assert (timing["dtype"], timing["load_ms"], timing["first_batch_ms"]) == ("fp16", 80, 9)
    assert "raw" not in timing
    assert "phases" not in timing


def test_robustness_is_in_its_row() -> None:
    rows = Row("one", (evaluation("one", TARGETS),), (), (Robustness("typos", 0.5, 0.25, 6),))
    assert compared(rows)["one"]["robustness"] == [
        {"perturbation": "typos", "accuracy": 0.5, "changed": 0.25, "n": 6}
    ]


ROWS = [
    row("one", (0, 0, 1, 1, 2, 2)),
    row("two", (0, 1, 2, 1, 0, 1)),
    row("three", (0, 1, 1, 0, 1, 0)),
]  # distinct predictions 1, 2, 2, 2, 3, 3; wrong ones 0, 2, 1, 1, 2, 2


def test_disagreements_are_ordered_by_distinct_and_then_by_wrong_predictions() -> None:
    found = disagreements(ROWS, TEXTS, 10)
    # Ties keep the order of the texts; texts on which all agree are left out.
    assert [item["text"] for item in found] == ["text 4", "text 5", "text 1", "text 2", "text 3"]
    assert found[0] == {
        "text": "text 4", "target": "c", "answers": {"one": "c", "two": "a", "three": "b"},
    }  # fmt: skip


@pytest.mark.parametrize(("limit", "shown"), [(0, 0), (2, 2), (5, 5), (100, 5)])
def test_number_of_disagreements_is_limited(limit: int, shown: int) -> None:
    assert len(disagreements(ROWS, TEXTS, limit)) == shown
    assert disagreements(ROWS, TEXTS, limit) == disagreements(ROWS, TEXTS, 10)[:shown]


def test_equal_wrong_predictions_are_not_a_disagreement() -> None:
    rows = [row(name, (1, 0, 0, 0, 0, 0)) for name in ("one", "two")]
    assert disagreements(rows, TEXTS, 6) == []


def timed_only(name: str = "timed", ms: float = 8.0) -> Row:
    times = (latency(name, (ms,)),)
    return Row(name, latencies=times, note="random weights", parameters=9_000, size_bytes=36_000)


def test_timed_only_row_has_its_size_and_no_quality() -> None:
    found = compared(row("one", TARGETS, latency("one", (2,))), timed_only())["timed"]
    (timing,) = found.pop("latencies")
    assert timing["total_ms"]["p50"] == 8
    assert found == {
        "model": "timed", "members": [], "note": "random weights", "rejected": "", "method": "",
        "origin": "",
        "parameters": 9_000, "size_bytes": 36_000,
        "scores": {}, "deviations": None, "intervals": {}, "ece": None, "per_class": {},
        "confusion_matrix": None, "robustness": [],
        "ratios": {"size": 90, "accuracy": None, "macro_f1": None, "speed": {"cpu": {"1": 0.25}}},
        "tests": None,
    }  # fmt: skip


def test_evaluated_row_has_the_size_of_its_evaluation() -> None:
    evaluated = Row("one", (evaluation("one", TARGETS),), parameters=1, size_bytes=1)
    found = compared(evaluated)["one"]
    assert (found["parameters"], found["size_bytes"]) == (100, 400)


def test_timed_only_row_does_not_change_the_others() -> None:
    others = [row("one", (0, 0, 1, 1, 2, 0)), row("two", (0, 1, 1, 0, 1, 0))]
    without = build_record(others, TEXTS, "two", 6)
    for place in (0, 1, 2):
        record = build_record([*others[:place], timed_only(), *others[place:]], TEXTS, "two", 6)
        assert record["rows"].pop(place)["model"] == "timed"
        assert record == without
        assert {len(item["answers"]) for item in record["disagreements"]} == {2}


def test_row_among_timed_only_rows_is_not_tested() -> None:
    record = build_record([timed_only("a"), row("one", TARGETS), timed_only("b")], TEXTS, "one", 6)
    assert [each["tests"] for each in record["rows"]] == [None] * 3
    assert record["disagreements"] == []
    assert json.loads(json.dumps(record, allow_nan=False)) == record


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("timed", "--reference timed was only timed: choose one of one, two"),
        ("unknown", "--reference unknown: choose one of one, two"),
    ],
)
def test_only_an_evaluated_row_can_be_the_reference(reference: str, message: str) -> None:
    rows = [timed_only(), row("one", TARGETS), row("two", TARGETS)]
    with pytest.raises(UsageError) as caught:
        build_record(rows, TEXTS, reference, 0)
    assert str(caught.value) == message


def test_comparison_without_evaluated_rows_is_refused() -> None:
    with pytest.raises(UsageError, match="no model was evaluated: add a trained model"):
        compared(timed_only("one"), timed_only("two"))


def test_timed_only_row_does_not_hide_an_incomparable_row() -> None:
    rows = [timed_only(), row("one", TARGETS), row("two", TARGETS, data="other")]
    with pytest.raises(UsageError, match="one and two are not comparable: data moods"):
        compared(*rows, reference="one")


def test_name_of_a_rejected_variant_is_marked_where_it_is_shown() -> None:
    variant = replace(row("one (int8)", TARGETS), rejected="too slow", method="int8", origin="one")
    found = compared(row("one", TARGETS), variant)["one (int8)"]
    assert {key: found[key] for key in ("rejected", "method", "origin")} == {
        "rejected": "too slow", "method": "int8", "origin": "one",
    }  # fmt: skip
    assert model_name(found) == "one (int8, rejected)"
    assert model_name({"model": "one", "rejected": "too slow"}) == "one (rejected)"
    assert model_name({"model": "one (int8)"}) == "one (int8)"  # of an older record


def test_latency_is_found_by_device_and_batch_size() -> None:
    times = [latency("one", (2,)), latency("one", (3,), device="cuda", batch_size=32)]
    found = compared(row("one", TARGETS, *times))["one"]
    (on_gpu,) = (timing for timing in found["latencies"] if timing["device"] == "cuda")
    assert latency_at(found, "cuda", 32) == on_gpu
    assert latency_at(found, "cuda", 1) is None
    assert latency_at(found, "cpu", 32) is None
