"""The table of the bundle beside its peers, from results/edge-speed.json."""

from typing import Any

from shared.record import read_record
from tabulate import tabulate

from featherweight.comparison import plots
from featherweight.reports.numbers import DASH, three_digits, with_interval

_DEPENDS = 1e-3  # of a probability: what the texts beside a text may change


def headline() -> str:
    """Returns the peers in the few columns that answer the question, and the answer in a line."""
    record = read_record("edge-speed")
    rows = [
        [
            row["model"],
            *(_quality(row["evaluation"], metric) for metric in ("macro_f1", "accuracy")),
            three_digits(row["one"]["p50_us"]) + _mark(row["one"]),
            f"{row['size_bytes'] / 1000:,.0f}",
        ]
        for row in record["rows"]
        if row["backend"] != "openvino"
    ]
    headers = ["model", "macro-F1", "accuracy", "µs a text", "size KB"]
    align = ("left", *["right"] * 4)
    table = tabulate(rows, headers, tablefmt="github", colalign=align, disable_numparse=True)
    by_name = {row["model"]: row for row in record["rows"]}
    ours, theirs = by_name["bundle"], by_name["minilm, more labels"]
    low, high = ours["evaluation"]["intervals"]["macro_f1"]
    if not low <= theirs["evaluation"]["macro_f1"] <= high:
        raise ValueError("the record contradicts what is said of it: write it anew")
    notes = "; ".join(f"{row['model']}: {row['note']}" for row in record["rows"] if row["note"])
    return (
        f"{table}\n\nText to label, one text after the other, on one core of "
        f"{record['environment']['cpu']['model']}; test split, "
        f"n = {record['data']['splits']['test']['n']:,}, 95 % bootstrap interval. {notes}.\n\n"
        f"So here the tiny model does: the bundle answers in {ours['one']['p50_us']:.0f} µs, "
        f"{theirs['one']['p50_us'] / ours['one']['p50_us']:,.0f} times as fast as a MiniLM "
        f"fine-tuned on the same labels and {ours['faster']:,.0f} times as fast as BERT-base, with "
        f"{ours['size_bytes'] / theirs['size_bytes']:.2%} of MiniLM's bytes and a macro-F1 whose "
        "interval holds MiniLM's."
    )


def edge_speed() -> str:
    """Returns a row a peer, how they were timed, and where the bundle's time goes."""
    record = read_record("edge-speed")
    headers = [
        "model", "µs a text, p50", "p99", "times faster than BERT-base", "texts/s in bulk",
        "size KB", "accuracy", "macro-F1",
    ]  # fmt: skip
    align = ("left", *["right"] * 7)
    table = tabulate(
        [_row(row) for row in record["rows"]],
        headers,
        tablefmt="github",
        colalign=align,
        disable_numparse=True,
    )
    return f"{table}\n\n{_conditions(record)}\n\n{_bundle(record)}"


def picture(record: dict[str, Any]) -> bytes:
    """Returns a PNG of macro-F1 against the time of one text."""
    rows = [
        {
            "model": row["model"],
            "size_bytes": row["size_bytes"],
            "scores": row["evaluation"],
            "intervals": row["evaluation"] and row["evaluation"]["intervals"],
            "latencies": [
                {
                    "device": "cpu",
                    "batch_size": 1,
                    "total_ms": {"p50": row["one"]["p50_us"] / 1000},
                    "noisy": row["one"]["noisy"],
                }
            ],
        }
        for row in record["rows"]
        if row["backend"] != "openvino"
    ]
    return plots.trade_off({"rows": rows})


def _row(row: dict[str, Any]) -> list[str]:
    one, bulk, test = row["one"], row["bulk"], row["evaluation"]
    return [
        row["model"],
        *(three_digits(one[key]) + _mark(one) for key in ("p50_us", "p99_us")),
        three_digits(row["faster"]) if "faster" in row else DASH,
        three_digits(bulk["texts_per_second"]) + _mark(bulk),
        f"{row['size_bytes'] / 1000:,.0f}",
        *(_quality(test, metric) for metric in ("accuracy", "macro_f1")),
    ]


def _quality(test: dict[str, Any] | None, metric: str) -> str:
    if not test:
        return DASH
    return with_interval(test[metric], test["intervals"][metric])


def _mark(timing: dict[str, Any]) -> str:
    return " *" if timing["noisy"] else ""


def _conditions(record: dict[str, Any]) -> str:
    """Says how it was measured, what the signs mean and who is missing."""
    rows = record["rows"]
    n = record["data"]["splits"]["test"]["n"]
    few = sorted({row["bulk"]["texts"] for row in rows} - {n})
    said = [
        "Text to label on one core, one thread, in turns "
        f"({record['environment']['cpu']['model']}). In bulk: {n:,} texts at once"
        f"{''.join(f', {size} for a transformer' for size in few)}. Quality: test split, "
        f"n = {n:,}, 95 % bootstrap interval."
    ]
    if any(row[key]["noisy"] for row in rows for key in ("one", "bulk")):
        said.append("*: the machine was restless; the rounds' medians lie too far apart.")
    said += [f"{row['model']}: {row['note']}." for row in rows if row["note"]]
    said += [
        f"{row['model']}: {row['same_labels']:.2%} of the labels are the bundle's; the texts "
        f"beside a text change its probabilities by up to {three_digits(row['batch_sensitivity'])}."
        for row in rows
        if row.get("batch_sensitivity", 0) > _DEPENDS
    ]
    said += [f"Left out: {name} ({why})." for name, why in record["left_out"].items()]
    return " ".join(said)


def _bundle(record: dict[str, Any]) -> str:
    """Says where the time of one text goes, and how soon a fresh interpreter answers."""
    stages, cold = record["stages_us"], record["cold_start"]
    seconds = {name: f"{value / 1000:.2f}" for name, value in cold["median_ms"].items()}
    return (
        f"The bundle's median text takes {stages['tokenizing']:.1f} µs to tokenize, "
        f"{stages['graph']:.1f} in the graph and {stages['rest']:.1f} besides. From the start of "
        f"Python to the first answer: {seconds['total']} s (median of {cold['starts']}: "
        f"{seconds['interpreter']} Python, {seconds['imports']} imports, {seconds['load']} "
        "loading). Record: `results/edge-speed.json`."
    )
