"""The tables of README.md and docs/presets.md, each from the record that it names."""

import itertools
import statistics
from itertools import groupby

from rendering import edge_table
from shared.record import read_record
from tabulate import tabulate

from featherweight.comparison import text
from featherweight.comparison.record import latency_at
from featherweight.comparison.tables import sections
from featherweight.reports.numbers import interval, spread, three_digits, with_interval

MOST_LINES = 30  # of what a command prints


def blocks() -> dict[str, str]:
    """Returns what stands between the markers of the README, by their names."""
    return {
        "quality": quality("emotion"),
        "other-data": other_data(),
        "training-time": training_time(),
        "transformers": comparison("versus-transformers"),
        **{f"compression-{it}": compression(it) for it in ("feather", "classic", "minilm")},
        "distillation": distillation(),
        "edge": edge_table.edge_speed(),
        "headline": edge_table.headline(),
        **prints(),
    }


def presets() -> dict[str, str]:
    """Returns what stands between the markers of docs/presets.md."""
    return {"comparison": comparison("comparison")}


def prints() -> dict[str, str]:
    """Returns each command of the walkthrough with what it printed, cut where it is long."""
    shown = {}
    for step in read_record("walkthrough")["steps"]:
        paragraphs = step["prints"].split("\n\n")
        lengths = itertools.accumulate(it.count("\n") + 2 for it in paragraphs)
        whole = [it for it, lines in zip(paragraphs, lengths, strict=True) if lines <= MOST_LINES]
        text = "\n\n".join(whole if len(whole) == len(paragraphs) else [*whole, "…"])
        shown[f"prints-{step['name']}"] = f"```console\n$ {step['command']}\n{text}\n```"
    return shown


def quality(name: str) -> str:
    """Returns a row per model: mean ± standard deviation over its seeds on the test split."""
    record = read_record(f"quality-{name}")
    rows = []
    for model, group in groupby(record["rows"], key=lambda row: row["model"]):
        runs = list(group)
        tests = [run["test"] for run in runs]
        rows.append(
            [
                f"`{model}`" if runs[0]["seed"] is not None else model,
                len(runs) if runs[0]["seed"] is not None else "–",
                f"{tests[0]['parameters']:,}",
                f"{tests[0]['size_bytes'] / 1000:,.0f}",
                *(spread([test[metric] for test in tests]) for metric in ("accuracy", "macro_f1")),
                spread([run["validation"]["macro_f1"] for run in runs]),
                interval(tests[0]["intervals"]["macro_f1"]),
            ]
        )
    headers = [
        "model", "seeds", "parameters", "size KB", "accuracy", "macro-F1", "validation macro-F1",
        "95 % interval of one run's macro-F1",
    ]  # fmt: skip
    align = ("left", *["right"] * 7)
    table = tabulate(rows, headers, tablefmt="github", colalign=align, disable_numparse=True)
    splits = record["data"]["splits"]
    return (
        f"{table}\n\nTest split, n = {splits['test']['n']:,}; mean ± standard deviation over "
        f"seeds, each checkpoint chosen on validation (n = {splits['validation']['n']:,}). "
        f"Record: `results/quality-{name}.json`."
    )


def other_data() -> str:
    """Returns a row per further data set: the default model and the linear baseline."""
    rows = []
    for name in ("sst2", "trec6"):
        record = read_record(f"quality-{name}")
        feather = [row["test"] for row in record["rows"] if row["model"] == "feather"]
        svm = next(row["test"] for row in record["rows"] if "SVM" in row["model"])
        rows.append(
            [
                name,
                len(record["data"]["labels"]),
                f"{record['data']['splits']['train']['n']:,}",
                f"{record['data']['splits']['test']['n']:,}",
                spread([test["accuracy"] for test in feather]),
                spread([test["macro_f1"] for test in feather]),
                f"{svm['accuracy']:.4f}",
                f"{svm['macro_f1']:.4f}",
            ]
        )
    headers = [
        "data", "classes", "train", "test", "`feather` accuracy", "`feather` macro-F1",
        "SVM accuracy", "SVM macro-F1",
    ]  # fmt: skip
    align = ("left", *["right"] * 7)
    return tabulate(rows, headers, tablefmt="github", colalign=align, disable_numparse=True)


def comparison(name: str) -> str:
    """Returns the tables of a comparison, GPU columns included where there was one."""
    record = read_record(name)
    contest, machine = record["comparison"], record["environment"]
    tables = [
        f"{table.title}:\n\n{text.render(table, 'github')}"
        for name, table in sections(contest).items()
        if name != "classes"
    ]
    timed = {it["device"] for row in contest["rows"] for it in row["latencies"]}
    gpu = machine["gpu"] if "cuda" in timed else "none at hand, so no GPU column"
    where = (
        f"CPU: {machine['cpu']['model']}, {machine['cores']} cores, {contest['threads']} thread a "
        f"contender; GPU: {gpu}. Record: `results/{name}.json`."
    )
    legend = text.legend(contest).replace("\n", "  \n")
    return "\n\n".join([*tables, legend, where])


def compression(origin: str) -> str:
    """Returns a row per variant of a model: size, quality beside the origin's, time, the gate."""
    record = read_record(f"compression-{origin}")
    contest, machine = record["comparison"], record["environment"]
    origin_name = contest["reference"]
    variants = {f"{origin_name} ({it['method']})": it for it in record["variants"]}
    rows = []
    for row in contest["rows"]:
        variant = variants.get(row["model"])
        if not variant and row["model"] != origin_name:
            continue
        test = (row["tests"] or {}).get("macro_f1")
        milliseconds = [
            three_digits(latency["total_ms"]["p50"])
            for latency in (latency_at(row, "cpu", size) for size in (1, 32))
            if latency
        ]
        rows.append(
            [
                f"`{variant['method']}`" if variant else row["model"],
                f"{row['size_bytes'] / 1000:,.0f}",
                f"{variant['ratio']:.3f}" if variant else "1",
                f"{row['scores']['accuracy']:.4f}",
                with_interval(row["scores"]["macro_f1"], row["intervals"]["macro_f1"]),
                f"{test['difference']:+.4f}, {test['verdict']}" if test else "",
                *milliseconds,
                ("rejected" if variant["rejected"] else "accepted") if variant else "",
            ]
        )
    headers = [
        "method", "size KB", "ratio", "accuracy", "macro-F1", "against the origin",
        "ms, batch 1", "ms, batch 32", "gate",
    ]  # fmt: skip
    align = ("left", "right", "right", "right", "right", "left", "right", "right", "left")
    table = tabulate(rows, headers, tablefmt="github", colalign=align, disable_numparse=True)
    return (
        f"{table}\n\nTest split, n = {record['data']['splits']['test']['n']:,}, 95 % bootstrap "
        f"interval; text to label on {machine['cpu']['model']}, {contest['threads']} thread. "
        f"Record: `results/compression-{origin}.json`."
    )


def distillation() -> str:
    """Returns a row each for `feather` on its own and taught: over seeds, on the test split."""
    record = read_record("distillation")
    rows = []
    for kind in ("feather", "feather, distilled"):
        runs = [row for row in record["rows"] if row["model"] == kind]
        rows.append(
            [
                kind,
                len(runs),
                *(
                    spread([run[split][metric] for run in runs])
                    for split, metric in (
                        ("test", "accuracy"), ("test", "macro_f1"), ("validation", "macro_f1"),
                    )
                ),
            ]
        )  # fmt: skip
    headers = ["model", "seeds", "accuracy", "macro-F1", "validation macro-F1"]
    align = ("left", *["right"] * 4)
    table = tabulate(rows, headers, tablefmt="github", colalign=align, disable_numparse=True)
    further = f", {record['unlabelled']:,} further texts that only the teachers labeled"
    return (
        f"{table}\n\nTaught by {', '.join(record['teachers'])} at temperature "
        f"{record['temperature']:g} and alpha {record['alpha']:g}"
        f"{further if record['unlabelled'] else ''}. Test split, mean ± standard deviation over "
        "seeds. Record: `results/distillation.json`."
    )


def training_time() -> str:
    """Returns one sentence on how long the default training takes."""
    record = read_record("training-time")
    rows, machine = record["rows"], record["environment"]

    def median(key: str) -> float:
        return statistics.median(row[key] for row in rows)

    return (
        f"Default training on {record['data']['name']} "
        f"({record['data']['splits']['train']['n']:,} texts), from the command to the finished "
        f"run: {median('seconds'):.0f} s (median of {len(rows)}, longest "
        f"{max(row['seconds'] for row in rows):.0f} s) on {machine['cores']} cores "
        f"({machine['cpu']['model']}); {median('epochs'):.0f} epochs of "
        f"{median('seconds_per_epoch'):.1f} s, {median('texts_per_second'):,.0f} texts a second. "
        "Record: `results/training-time.json`."
    )
