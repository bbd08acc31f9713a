from featherweight.reports.classes import hidden_classes, shown_classes

Scores = dict[str, dict[str, float]]


def scores(count: int, **f1: float) -> Scores:
    """F1 of `count` classes, that rises with the number of the class unless given."""
    return {
        f"c{number}": {"f1": f1.get(f"c{number}", number / count), "support": 10 + number}
        for number in range(count)
    }


def test_up_to_thirty_classes_are_shown_in_their_order() -> None:
    assert shown_classes([scores(30, c7=0)]) == [f"c{number}" for number in range(30)]
    assert hidden_classes(30, "evaluation.json") == ""


def test_of_more_classes_the_ten_worst_and_the_ten_best_are_shown() -> None:
    shown = shown_classes([scores(31)])
    assert shown == [f"c{number}" for number in (*range(10), *range(21, 31))]
    assert hidden_classes(31, "x.json").startswith("11 of 31 labels are not shown")
    assert hidden_classes(31, "x.json").endswith("--json and x.json have all.")


def test_classes_are_ordered_by_the_mean_over_models() -> None:
    one, other = scores(40, c39=0.0), scores(40, c0=1.0)
    shown = shown_classes([one, other])
    assert shown[:3] == ["c1", "c2", "c3"]
    assert "c39" not in shown  # 0 and 39 / 40: the middle
    assert "c0" not in shown


def test_of_equally_bad_classes_the_one_with_more_texts_is_worse() -> None:
    absent = scores(40, c30=0.0, c31=0.0)
    absent["c31"]["support"] = 0
    assert shown_classes([absent])[:3] == ["c30", "c0", "c31"]
