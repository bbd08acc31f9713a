import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from featherweight.comparison.record import Row, build_record, disagreements
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
    model: str, answers: Sequence[int], targets: Sequence[int] = TARGETS, **changes: Any
) -> Evaluation:
    labels = changes.pop("labels", LABELS)
    probabilities = np.full((len(answers), len(labels)), 0.1)
    probabilities[np.arange(len(answers)), answers] = 1 - 0.1 * (len(labels) - 1)
    values = {"data": "moods", "split": "test", "parameters": 100, "size_bytes": 400} | changes
    return Evaluation(
        model, labels=labels, targets=np.array(targets), probabilities=probabilities, **values
    )


def row(model: str, answers: Sequence[int], *latencies: Latency, **changes: Any) -> Row:
    return Row(model, (evaluation(model, answers, **changes),), latencies)


def seeds(model: str, *answers: Sequence[int], **changes: Any) -> Row:
    names = [f"{model}-{number}" for number in range(len(answers))]
    members = [evaluation(name, one, **changes) for name, one in zip(names, answers, strict=True)]
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


def side_by_side(*rows: Row, reference: str = "", most: int = 0) -> dict[str, dict[str, Any]]:
    record = build_record(rows, TEXTS, reference or rows[0].model, most)
    return {row["model"]: row for row in record["rows"]}


def many(broken: int) -> tuple[list[int], list[int], list[int]]:
    """Targets of 2,000 texts, answers of which 200 are wrong, and a copy with more broken."""
    targets = [number % 3 for number in range(2000)]
    answers = [*targets[:1800], *((target + 1) % 3 for target in targets[1800:])]
    copy = [*((target + 1) % 3 for target in targets[:broken]), *answers[broken:]]
    return targets, answers, copy


def test_two_copies_of_a_model_show_no_difference() -> None:
    targets, answers, copy = many(broken=0)
    rows = [row("one", answers, targets=targets), row("copy", copy, targets=targets)]
    found = build_record(rows, ["x"] * 2000, "one", 0)["rows"][1]
    for metric in METRICS:
        test = found["tests"][metric]
        assert test["verdict"] == "no difference shown (n = 2000)"
        assert (test["difference"], test["interval"], test["adjusted_p"]) == (0, [0, 0], 1)
    assert found["scores"]["accuracy"] == 0.9


@pytest.mark.parametrize(
    ("reference", "verdict", "sign"), [("one", "worse", -1), ("broken", "better", 1)]
)
def test_a_copy_with_a_twentieth_of_its_answers_broken_is_worse(
    reference: str, verdict: str, sign: int
) -> None:
    targets, answers, copy = many(broken=100)
    rows = [row("one", answers, targets=targets), row("broken", copy, targets=targets)]
    record = build_record(rows, ["x"] * 2000, reference, 0)
    (tests,) = [each["tests"] for each in record["rows"] if each["tests"]]
    assert [tests[metric]["verdict"] for metric in METRICS] == [verdict, verdict]
    assert tests["accuracy"]["difference"] == pytest.approx(sign * 0.05)
    low, high = tests["accuracy"]["interval"]
    assert low < sign * 0.05 < high
    # All 100 texts on which only one of the two is right speak for the same one.
    assert tests["accuracy"]["p_value"] == pytest.approx(2 * 0.5**100)


def test_a_comparison_is_reproducible_to_the_digit() -> None:
    targets, answers, copy = many(broken=30)
    rows = [
        row("one", answers, targets=targets),
        row("copy", copy, targets=targets),
        seeds("seeds", answers, copy, targets=targets),
    ]
    first, second = (json.dumps(build_record(rows, ["x"] * 2000, "one", 5)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data": "other"}, "data moods and other"),
        ({"split": "validation"}, "split test and validation"),
        ({"labels": ("a", "b", "d")}, "labels a, b, c and a, b, d"),
        ({"labels": ("a", "c", "b")}, "labels a, b, c and a, c, b"),
        ({"labels": ("a", "b", "c", "d")}, "labels"),
        ({"targets": (0, 0, 1, 1, 2, 1)}, "other texts"),
        ({"targets": (0, 0, 1, 1, 2)}, "other texts"),
    ],
)
@pytest.mark.parametrize("in_a_group", [False, True])
def test_what_was_measured_otherwise_is_refused_with_the_reason(
    changes: dict[str, Any], says: str, in_a_group: bool
) -> None:
    answers = TARGETS[: len(changes.get("targets", TARGETS))]
    other = evaluation("theirs", answers, **changes)
    first = evaluation("ours", TARGETS)
    rows = (
        [Row("ours", (first,)), Row("mixed", (evaluation("good", TARGETS), other))]
        if in_a_group
        else [Row("ours", (first,)), Row("theirs", (other,))]
    )
    with pytest.raises(UsageError, match=says) as caught:
        build_record(rows, TEXTS, "ours", 0)
    assert "\n" not in str(caught.value)
    assert {"ours", "theirs"} <= set(str(caught.value).split())


def test_two_rows_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="same name"):
        side_by_side(row("one", TARGETS), row("one", TARGETS))


def test_an_unknown_reference_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UsageError, match=r"--reference nobody: choose one of one, two"):
        side_by_side(row("one", TARGETS), row("two", TARGETS), reference="nobody")


def test_the_record_says_what_was_compared_on_what() -> None:
    record = build_record([row("one", TARGETS), row("two", TARGETS)], TEXTS, "two", 0)
    assert record["reference"] == "two"
    assert record["data"] == {"name": "moods", "split": "test", "n": 6, "labels": ["a", "b", "c"]}
    assert [each["model"] for each in record["rows"]] == ["one", "two"]
    assert record["disagreements"] == []


def test_the_record_is_plain_json() -> None:
    rows = [row("one", TARGETS, latency("one", (1, 2))), seeds("two", TARGETS, (0,) * 6)]
    record = build_record(rows, TEXTS, "one", 6)
    assert json.loads(json.dumps(record)) == record


def test_a_row_alone_has_nothing_to_be_tested_against() -> None:
    found = side_by_side(row("one", (0, 0, 1, 1, 2, 0)))
    assert found["one"]["tests"] is None
    assert found["one"]["ratios"]["size"] == 1


def test_the_figures_of_a_row_are_those_of_its_evaluation() -> None:
    # Right: a twice, b once, c twice; the b that went wrong was called c.
    # Precision 1, 1, 2/3; recall 1, 1/2, 1; F1 1, 2/3, 4/5.
    answers = (0, 0, 1, 2, 2, 2)
    found = side_by_side(row("one", answers, parameters=7, size_bytes=99))["one"]
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
    # Each answer was given with a confidence of 0.8, and five in six are right.
    assert found["ece"] == pytest.approx(5 / 6 - 0.8)
    assert found["confusion_matrix"] == [[2, 0, 0], [0, 1, 1], [0, 0, 2]]
    assert found["per_class"]["b"] == pytest.approx(
        {"precision": 1, "recall": 0.5, "f1": 2 / 3, "support": 2}
    )
    intervals = evaluation("one", answers).intervals
    assert {name: tuple(ends) for name, ends in found["intervals"].items()} == intervals
    for metric, (low, high) in found["intervals"].items():
        assert low < found["scores"][metric] <= high


def test_seeds_are_one_row_with_mean_and_deviation() -> None:
    # Accuracies 1, 5/6 and 1/2, their mean 7/9, and deviations from it 2/9, 1/18 and -5/18.
    answers = [TARGETS, (0, 0, 1, 1, 2, 0), (0, 1, 1, 0, 2, 0)]
    found = side_by_side(row("one", TARGETS), seeds("three", *answers))["three"]
    assert found["members"] == ["three-0", "three-1", "three-2"]
    assert found["scores"]["accuracy"] == pytest.approx(7 / 9)
    deviation = ((4**2 + 1**2 + 5**2) / 18**2 / 2) ** 0.5
    assert found["deviations"]["accuracy"] == pytest.approx(deviation)
    assert set(found["deviations"]) == set(found["scores"])
    members = [evaluation("x", one) for one in answers]
    for name, ends in found["intervals"].items():
        for end in (0, 1):
            assert ends[end] == pytest.approx(
                np.mean([one.intervals[name][end] for one in members])
            )
    assert found["ece"] == pytest.approx(np.mean([one.ece for one in members]))
    assert found["confusion_matrix"] == [[2, 0, 0], [0, 2, 0], [0, 0, 2]]


def test_seeds_are_tested_by_their_means() -> None:
    answers = [(0, 0, 1, 1, 2, 0), (0, 1, 1, 0, 2, 0)]
    found = side_by_side(seeds("two", TARGETS, TARGETS), seeds("others", *answers))["others"]
    assert found["tests"]["accuracy"]["difference"] == pytest.approx(4 / 6 - 1)
    targets, members = np.array(TARGETS), [np.array(one) for one in answers]
    for metric in METRICS:
        alone = compare_groups(targets, [targets, targets], members, 3, metric)  # type: ignore[arg-type]
        assert found["tests"][metric]["p_value"] == alone.p_value
        assert found["tests"][metric]["interval"] == list(alone.interval)


def test_tests_are_corrected_over_all_rows_and_both_metrics() -> None:
    targets, answers, _ = many(broken=0)
    rows = [row("one", answers, targets=targets)]
    rows += [row(str(n), many(broken=n)[2], targets=targets) for n in (4, 8, 12)]
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


def test_ratios_are_shares_of_the_reference_and_speed_how_often_faster() -> None:
    big = row("big", TARGETS, latency("big", (4, 4, 4)), latency("big", (40,), batch_size=32))
    small = row(
        "small", (0, 0, 1, 2, 2, 2), latency("small", (1, 2, 9)),
        latency("small", (3,), device="cuda"), size_bytes=100,
    )  # fmt: skip
    found = side_by_side(big, small)
    ratios = found["small"]["ratios"]
    assert ratios["size"] == 0.25
    assert ratios["accuracy"] == pytest.approx(5 / 6)
    assert ratios["macro_f1"] == pytest.approx((1 + 2 / 3 + 4 / 5) / 3)
    # Of the medians; batches of 32 and the GPU were not timed for both.
    assert ratios["speed"] == {"cpu": {"1": 2.0}}
    assert found["big"]["ratios"] == {
        "size": 1, "accuracy": 1, "macro_f1": 1, "speed": {"cpu": {"1": 1, "32": 1}},
    }  # fmt: skip


def test_a_reference_that_is_never_right_can_be_compared_with() -> None:
    found = side_by_side(row("never", (1, 1, 2, 2, 0, 0)), row("always", TARGETS))
    assert found["always"]["tests"]["accuracy"]["difference"] == 1
    json.dumps(found, allow_nan=False)


def test_timings_carry_the_percentiles_of_each_phase() -> None:
    times = latency("one", (4, 8, 12, 16, 20), batch_size=32, dtype="fp16")
    (timing,) = side_by_side(row("one", TARGETS, times))["one"]["latencies"]
    # From the third of five samples to the fifth in steps of a quarter: 90 % is at 3.6 of 4.
    assert timing["phases"]["total"] == pytest.approx(
        {"p50": 12, "p90": 18.4, "p95": 19.2, "p99": 19.84}
    )
    assert timing["phases"]["encode"]["p50"] == 3
    assert timing["phases"]["forward"]["p50"] == 9
    assert timing["texts_per_second"] == pytest.approx(32 / 0.012)
    assert (timing["device"], timing["batch_size"], timing["samples"]) == ("cpu", 32, 5)
    assert (timing["dtype"], timing["load_ms"], timing["first_batch_ms"]) == ("fp16", 80, 9)
    assert "raw" not in timing


def test_robustness_stands_in_its_row() -> None:
    rows = Row("one", (evaluation("one", TARGETS),), (), (Robustness("typos", 0.5, 0.25, 6),))
    assert side_by_side(rows)["one"]["robustness"] == [
        {"perturbation": "typos", "accuracy": 0.5, "changed": 0.25, "n": 6}
    ]


ROWS = [
    row("one", (0, 0, 1, 1, 2, 2)),
    row("two", (0, 1, 2, 1, 0, 1)),
    row("three", (0, 1, 1, 0, 1, 0)),
]  # different answers 1, 2, 2, 2, 3, 3; wrong ones 0, 2, 1, 1, 2, 2


def test_disagreements_begin_with_the_most_different_and_then_the_most_wrong_answers() -> None:
    found = disagreements(ROWS, TEXTS, 10)
    # Where both are equal the texts keep their order; where all agree there is nothing to show.
    assert [item["text"] for item in found] == ["text 4", "text 5", "text 1", "text 2", "text 3"]
    assert found[0] == {
        "text": "text 4", "target": "c", "answers": {"one": "c", "two": "a", "three": "b"},
    }  # fmt: skip


@pytest.mark.parametrize(("most", "shown"), [(0, 0), (2, 2), (5, 5), (100, 5)])
def test_so_many_disagreements_are_shown_as_asked(most: int, shown: int) -> None:
    assert len(disagreements(ROWS, TEXTS, most)) == shown
    assert disagreements(ROWS, TEXTS, most) == disagreements(ROWS, TEXTS, 10)[:shown]


def test_texts_on_which_all_are_wrong_alike_are_no_disagreement() -> None:
    rows = [row(name, (1, 0, 0, 0, 0, 0)) for name in ("one", "two")]
    assert disagreements(rows, TEXTS, 6) == []


def timed_only(name: str = "silent", ms: float = 8.0) -> Row:
    times = (latency(name, (ms,)),)
    return Row(name, latencies=times, note="random weights", parameters=9_000, size_bytes=36_000)


def test_a_row_that_was_timed_only_states_its_size_and_leaves_its_quality_empty() -> None:
    found = side_by_side(row("one", TARGETS, latency("one", (2,))), timed_only())["silent"]
    (timing,) = found.pop("latencies")
    assert timing["phases"]["total"]["p50"] == 8
    assert found == {
        "model": "silent", "members": [], "note": "random weights",
        "parameters": 9_000, "size_bytes": 36_000,
        "scores": {}, "deviations": None, "intervals": {}, "ece": None, "per_class": {},
        "confusion_matrix": None, "robustness": [],
        "ratios": {"size": 90, "accuracy": None, "macro_f1": None, "speed": {"cpu": {"1": 0.25}}},
        "tests": None,
    }  # fmt: skip


def test_a_row_that_answered_states_the_size_of_its_evaluation() -> None:
    answered = Row("one", (evaluation("one", TARGETS),), parameters=1, size_bytes=1)
    found = side_by_side(answered)["one"]
    assert (found["parameters"], found["size_bytes"]) == (100, 400)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_row_that_was_timed_only_changes_nothing_for_the_others(place: int) -> None:
    others = [row("one", (0, 0, 1, 1, 2, 0)), row("two", (0, 1, 1, 0, 1, 0))]
    without = build_record(others, TEXTS, "two", 6)
    record = build_record([*others[:place], timed_only(), *others[place:]], TEXTS, "two", 6)
    assert record["rows"].pop(place)["model"] == "silent"
    assert record == without
    assert {len(item["answers"]) for item in record["disagreements"]} == {2}


def test_beside_rows_that_were_timed_only_a_row_has_nothing_to_be_tested_against() -> None:
    record = build_record([timed_only("a"), row("one", TARGETS), timed_only("b")], TEXTS, "one", 6)
    assert [each["tests"] for each in record["rows"]] == [None] * 3
    assert record["disagreements"] == []
    assert json.loads(json.dumps(record, allow_nan=False)) == record


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("silent", "--reference silent was timed only: choose one of one, two"),
        ("nobody", "--reference nobody: choose one of one, two"),
    ],
)
def test_only_a_row_that_answered_can_be_the_reference(reference: str, says: str) -> None:
    rows = [timed_only(), row("one", TARGETS), row("two", TARGETS)]
    with pytest.raises(UsageError) as caught:
        build_record(rows, TEXTS, reference, 0)
    assert str(caught.value) == says


def test_rows_that_were_all_timed_only_are_refused() -> None:
    with pytest.raises(UsageError, match="no contender has answered a text: add a model"):
        side_by_side(timed_only("one"), timed_only("two"))


def test_a_row_that_was_timed_only_hides_no_row_of_other_texts() -> None:
    rows = [timed_only(), row("ours", TARGETS), row("theirs", TARGETS, data="other")]
    with pytest.raises(UsageError, match="ours and theirs are not comparable: data moods"):
        side_by_side(*rows, reference="ours")
