from typing import Any

import pytest

from compress.all_methods import advice, rankings

Record = dict[str, Any]


def rows(*given: tuple[str, int, float, float, str]) -> Record:
    """A record of rows of name, bytes, milliseconds, macro-F1 and method."""
    return {
        "rows": [
            {
                "model": name, "size_bytes": size, "scores": {"macro_f1": macro_f1},
                "method": method, "rejected": "",
                "latencies": [
                    {"device": "cpu", "batch_size": 32, "total_ms": {"p50": 9.0}},
                    {"device": "cpu", "batch_size": 1, "total_ms": {"p50": ms}},
                ],
            }
            for name, size, ms, macro_f1, method in given
        ]
    }  # fmt: skip


def test_advice_says_what_is_gained_and_lost() -> None:
    record = rows(
        ("tiny", 1000, 1.0, 0.9, ""),
        ("tiny (fp16)", 500, 1.0, 0.9, "fp16"),
        ("tiny (int4)", 100, 1.0, 0.2, "int4"),
        ("tiny (int8)", 250, 1.0, 0.895, "int8"),
        ("most frequent class", 12, 0.1, 0.1, ""),
    )
    record["rows"][2]["rejected"] = "it loses 0.7"
    assert advice(record) == (
        "Take tiny (int8): 25% of the size for -0.0050 of validation macro F1."
    )


@pytest.mark.parametrize("name", ["most", "T", "TF-IDF"])
def test_a_baseline_is_never_advised_whatever_the_run_is_called(name: str) -> None:
    record = rows(
        (name, 1000, 1.0, 0.9, ""),
        (f"{name} (fp16)", 500, 1.0, 0.9, "fp16"),
        ("most frequent class", 12, 0.1, 0.1, ""),
        ("TF-IDF + linear SVM", 40, 0.1, 0.8, ""),
    )
    assert advice(record).startswith(f"Take {name} (fp16): ")


def test_rankings_are_sorted_each_by_its_own_number() -> None:
    record = rows(("a", 30, 2.0, 0.8, ""), ("b", 10, 3.0, 0.9, ""), ("c", 20, 1.0, 0.7, ""))
    assert rankings(record).splitlines() == [
        "by size: b, c, a",
        "by speed: c, a, b",
        "by macro F1: b, a, c",
    ]


def test_what_was_not_timed_for_one_text_on_the_cpu_is_ranked_last() -> None:
    record = rows(("a", 30, 2.0, 0.8, ""), ("b", 10, 3.0, 0.9, ""))
    record["rows"][0]["latencies"] = []
    assert "by speed: b, a" in rankings(record)
