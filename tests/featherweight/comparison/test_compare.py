import csv
import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress.config import CompressConfig
from compress.variant import compress_run
from featherweight import load
from featherweight.cli import main
from featherweight.comparison import compare as module_under_test
from featherweight.comparison import page
from featherweight.comparison.compare import compare, write_report
from featherweight.comparison.text import markdown, terminal
from featherweight.config import CompareConfig
from featherweight.errors import FeatherweightError, UsageError
from featherweight.reports import plots
from featherweight.run import CHECKPOINT, MODEL, Run
from featherweight.timing import latency
from featherweight.timing.latency import Contender, Latency
from lstm.classifier import TextClassifier

Record = dict[str, Any]
BASELINES = ["most frequent class", "TF-IDF + linear SVM"]
FILES = {
    "report.json", "report.csv", "report.md", "report.html", "latency.json",
    "trade_off.png", "confusion_matrices.png", "per_class.png",
}  # fmt: skip
METRICS = ("accuracy", "macro_f1")


class Stopwatch:
    """In place of `measure`, whose processes take seconds: makes up times, keeps what was asked.

    The n-th contender needs n ms for one text on the CPU, and a tenth of it on the GPU.
    """

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(
        self, contenders: Sequence[Contender], texts: Sequence[str], **asked: Any
    ) -> list[Latency]:
        self.calls.append({"contenders": contenders, "texts": texts} | asked)
        return [
            self.latency(one.name, device, size, number / (1 if device == "cpu" else 10))
            for device in asked["devices"]
            for number, one in enumerate(contenders, start=1)
            if one.runs_on(device)
            for size in asked["batch_sizes"]
        ]

    def latency(self, model: str, device: str, batch_size: int, ms: float) -> Latency:
        total = (ms, ms * batch_size, ms * batch_size)
        half = tuple(each / 2 for each in total)
        return Latency(
            model, device, "a processor", "fp32", "torch", 1, batch_size, half, half, total,
            half if device == "cuda" else (), (7, 7, 7), (0, 1, 2), 9.0, 80.0, 1_000, None, 0.1,
        )  # fmt: skip


@pytest.fixture
def stopwatch(monkeypatch: pytest.MonkeyPatch) -> Stopwatch:
    stopwatch = Stopwatch()
    monkeypatch.setattr(module_under_test, "measure", stopwatch)
    return stopwatch


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws nothing, since pictures take seconds."""
    for name in ("trade_off", "confusion_matrices", "per_class_bars"):
        monkeypatch.setattr(plots, name, lambda _: b"a picture")
    monkeypatch.setattr(page, "comparison_page", lambda _: "a page")


def copy_run(origin: Path, path: Path, noise: float = 0.0, permuted: bool = False) -> Path:
    """A run under another name; with noise on its weights, or its labels in another order."""
    shutil.copytree(origin, path)
    classifier = load(path, "cpu")
    assert isinstance(classifier, TextClassifier)
    classifier.name = path.name
    head = classifier.module.head
    with torch.no_grad():
        head.bias += noise * torch.randn(3, generator=torch.Generator().manual_seed(5))
        if permuted:
            order = [2, 0, 1]
            classifier.labels = tuple(classifier.labels[index] for index in order)
            head.weight[:] = head.weight[order].clone()
            head.bias[:] = head.bias[order].clone()
    classifier.save(path / MODEL)
    return path


def change(run: Path, file: str, **values: Any) -> None:
    Run(run).write_json(file, Run(run).read_json(file) | values)


@pytest.fixture(scope="module")
def runs(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs that nobody writes into."""
    folder = tmp_path_factory.mktemp("runs")
    noisy = copy_run(tiny_run, folder / "noisy", noise=0.5)
    permuted = copy_run(tiny_run, folder / "permuted", permuted=True)
    return {"tiny": tiny_run, "noisy": noisy, "permuted": permuted}


@pytest.fixture(scope="module")
def written(
    runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Record, list[Latency], Path]]:
    """A comparison with all that can be asked for, its times, and its report."""
    folder = tmp_path_factory.mktemp("reports") / "deep" / "report"
    config = CompareConfig(
        weights=[runs["tiny"], runs["noisy"]], reference="noisy", device="cpu", robustness=True,
        disagreements=4, output_path=folder, threads=2,
    )  # fmt: skip
    stopwatch = Stopwatch()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module_under_test, "measure", stopwatch)
        record = compare(config)
    (call,) = stopwatch.calls
    yield record, Stopwatch()(**call), folder


def compared(*weights: Path, **flags: Any) -> Record:
    return compare(CompareConfig(weights=[*weights], **{"device": "cpu"} | flags))


def by_name(record: Record) -> dict[str, Record]:
    return {row["model"]: row for row in record["rows"]}


def write(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(["text,label", *rows, ""]), encoding="utf-8")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# What is compared


def test_the_weights_come_first_and_the_baselines_after_them(
    runs: dict[str, Path], stopwatch: Stopwatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    record = compared(runs["tiny"], runs["noisy"])
    assert [row["model"] for row in record["rows"]] == ["tiny", "noisy", *BASELINES]
    assert record["reference"] == "tiny"
    saved = Run(runs["tiny"]).read_json("data.json")
    assert record["data"] == {
        "name": "moods", "split": "test", "n": 12, "labels": saved["labels"],
        "sha256": saved["splits"]["test"]["sha256"],
    }  # fmt: skip
    assert (record["threads"], record["disagreements"]) == (1, [])
    assert record["environment"]["cpu"]["model"]
    assert all(row["robustness"] == [] for row in record["rows"])
    assert names(tmp_path) == []


def test_all_are_timed_in_one_go_on_the_texts_of_the_split(
    runs: dict[str, Path], stopwatch: Stopwatch
) -> None:
    record = compared(runs["tiny"], runs["noisy"], batch_sizes="4, 1", threads=2)
    (asked,) = stopwatch.calls
    assert [one.name for one in asked["contenders"]] == ["tiny", "noisy", *BASELINES]
    assert [one.weights for one in asked["contenders"]] == [runs["tiny"], runs["noisy"], None, None]
    assert (len(asked["texts"]), len(asked["train"])) == (12, 36)
    assert (asked["batch_sizes"], asked["devices"], asked["threads"]) == ([4, 1], ["cpu"], 2)
    svm = by_name(record)["TF-IDF + linear SVM"]
    assert [(it["batch_size"], it["phases"]["total"]["p50"]) for it in svm["latencies"]] == [
        (4, 16),
        (1, 4),
    ]
    assert svm["ratios"]["speed"] == {"cpu": {"4": 0.25, "1": 0.25}}


def test_a_run_and_its_copy_show_no_difference(
    runs: dict[str, Path], stopwatch: Stopwatch, tmp_path: Path
) -> None:
    found = by_name(compared(runs["tiny"], copy_run(runs["tiny"], tmp_path / "copy")))
    for metric in METRICS:
        assert found["copy"]["tests"][metric]["verdict"] == "no difference shown (n = 12)"
    assert found["copy"]["scores"] == found["tiny"]["scores"]
    assert found["copy"]["intervals"] == found["tiny"]["intervals"]


@pytest.mark.parametrize("first", ["tiny", "permuted"])
def test_labels_are_matched_by_name(
    runs: dict[str, Path], stopwatch: Stopwatch, first: str
) -> None:
    given = sorted((runs["tiny"], runs["permuted"]), key=lambda path: path.name != first)
    assert load(given[0]).labels != load(given[1]).labels
    record = compared(*given)
    found = by_name(record)
    assert found["permuted"]["per_class"] == found["tiny"]["per_class"]
    assert found["permuted"]["confusion_matrix"] == found["tiny"]["confusion_matrix"]
    assert found["permuted"]["scores"] == found["tiny"]["scores"]
    assert found["permuted"]["ece"] == pytest.approx(found["tiny"]["ece"])
    assert found["permuted"]["intervals"] == found["tiny"]["intervals"]
    assert found["tiny"]["per_class"]["joy"]["support"] == 4
    assert record["data"]["labels"] == list(load(given[0]).labels)


def test_a_comparison_is_reproducible_to_the_digit(
    runs: dict[str, Path], stopwatch: Stopwatch
) -> None:
    given = [runs["tiny"], runs["noisy"]]
    first, second = (compared(*given, robustness=True, disagreements=12) for _ in range(2))
    assert first["rows"] == second["rows"]
    assert first["disagreements"] == second["disagreements"]


def test_the_validation_split_or_other_data_can_be_asked_for(
    runs: dict[str, Path], stopwatch: Stopwatch, tmp_path: Path
) -> None:
    validation = compared(runs["tiny"], split="validation")["data"]
    assert (validation["split"], validation["n"]) == ("validation", 12)
    rows = [f"happy {n},joy\nsad {n},sadness" for n in range(30)]
    data = write(tmp_path / "others.csv", *rows)
    portable = runs["tiny"] / MODEL
    other = compared(portable, data=str(data))["data"]
    assert (other["name"], other["split"], other["n"]) == ("others", "test", 6)


def test_a_portable_file_is_compared_on_the_data_of_a_run_beside_it(
    runs: dict[str, Path], stopwatch: Stopwatch
) -> None:
    record = compared(runs["noisy"] / MODEL, runs["tiny"])
    assert [row["model"] for row in record["rows"][:2]] == ["noisy", "tiny"]
    assert record["data"]["name"] == "moods"


def test_baselines_do_not_learn_from_leaks_that_the_run_did_not_see(
    runs: dict[str, Path], stopwatch: Stopwatch, tiny_data: Path, tmp_path: Path
) -> None:
    data, run = tmp_path / "moods", tmp_path / "run"
    shutil.copytree(tiny_data, data)
    leaked = (data / "test.csv").read_text(encoding="utf-8").partition("\n")[2]
    with (data / "train.csv").open("a", encoding="utf-8") as file:
        file.write(leaked)
    shutil.copytree(runs["tiny"], run)
    change(run, "config.json", data=str(data), drop_leaks=True)
    compared(run)
    compared(run, data=str(data), drop_leaks=True)
    assert [len(asked["train"]) for asked in stopwatch.calls] == [36, 36]


def test_robustness_is_shown_on_request(written: tuple[Record, list[Latency], Path]) -> None:
    record = written[0]
    for row in record["rows"]:
        perturbations = [it["perturbation"] for it in row["robustness"]]
        assert {"upper case", "typos"} <= set(perturbations)
        assert perturbations == [it["perturbation"] for it in record["rows"][0]["robustness"]]
    (constant,) = [row for row in record["rows"] if row["model"] == "most frequent class"]
    assert {it["changed"] for it in constant["robustness"]} == {0}


def test_disagreements_are_shown_on_request(written: tuple[Record, list[Latency], Path]) -> None:
    record = written[0]
    assert 0 < len(record["disagreements"]) <= 4
    for item in record["disagreements"]:
        assert set(item["answers"]) == {"tiny", "noisy", *BASELINES}
        assert len(set(item["answers"].values())) > 1
        assert {item["target"], *item["answers"].values()} <= set(record["data"]["labels"])
    numbers = [len(set(item["answers"].values())) for item in record["disagreements"]]
    assert numbers == sorted(numbers, reverse=True)


def test_the_others_are_tested_against_the_reference(
    written: tuple[Record, list[Latency], Path],
) -> None:
    record = written[0]
    found = by_name(record)
    assert record["reference"] == "noisy"
    assert found["noisy"]["tests"] is None
    difference = found["tiny"]["scores"]["accuracy"] - found["noisy"]["scores"]["accuracy"]
    assert found["tiny"]["tests"]["accuracy"]["difference"] == pytest.approx(difference)
    assert found["tiny"]["ratios"]["speed"] == {"cpu": {"1": 2, "32": 2}}


# What is not worth its loss


def test_a_rejected_variant_is_marked_and_an_accepted_one_is_not(
    runs: dict[str, Path], stopwatch: Stopwatch, tmp_path: Path
) -> None:
    origin = copy_run(runs["tiny"], tmp_path / "outputs" / "tiny")
    bf16, fp16 = (
        compress_run(CompressConfig(weights=origin, method=method, device="cpu"))[0].path
        for method in ("bf16", "fp16")
    )
    accepted = by_name(compared(origin, fp16, bf16))
    assert [*accepted] == ["tiny", "tiny (fp16)", "tiny (bf16)", *BASELINES]
    why = "it loses 0.0500 of validation macro-F1, 0.01 is allowed"
    change(bf16, "compression.json", rejected=why)
    record = compared(origin, fp16, bf16)
    found = by_name(record)
    assert [*found] == ["tiny", "tiny (fp16)", "tiny (bf16, rejected)", *BASELINES]
    notes = [row["note"] for row in record["rows"]]
    assert notes == ["", "", f"rejected, since {why}", *(accepted[it]["note"] for it in BASELINES)]
    # It is asked and timed like any other.
    assert found["tiny (bf16, rejected)"]["scores"] == accepted["tiny (bf16)"]["scores"]
    assert found["tiny (bf16, rejected)"]["latencies"]
    assert f"tiny (bf16, rejected): rejected, since {why}" in terminal(record)
    assert "tiny (bf16, rejected)" in markdown(record)
    assert [
        line for line in terminal(record).splitlines() if line.startswith("tiny (fp16): ")
    ] == []


# Seeds


def seeds(origin: Path, folder: Path, *numbers: int, stem: str = "feather-") -> list[Path]:
    paths = []
    for number in numbers:
        path = copy_run(origin, folder / f"{stem}{number}", noise=number / 2)
        change(path, "config.json", seed=number, name=path.name)
        paths.append(path)
    return paths


def test_seeds_are_grouped_and_their_variants_apart(
    runs: dict[str, Path], stopwatch: Stopwatch, tmp_path: Path
) -> None:
    paths = seeds(runs["tiny"], tmp_path, 0, 1, 2)
    halves = [
        compress_run(CompressConfig(weights=path, method="fp16", device="cpu"))[0].path
        for path in paths
    ]
    alone = by_name(compared(*paths, *halves))
    # In any order: what belongs together is told by the runs themselves.
    record = compared(*paths[:2], *halves, paths[2], group=True, disagreements=12)
    found = by_name(record)
    assert [*found] == ["feather", "feather (fp16)", *BASELINES]
    assert found["feather"]["members"] == ["feather-0", "feather-1", "feather-2"]
    assert found["feather (fp16)"]["members"] == [f"feather-{n} (fp16)" for n in range(3)]
    for name, scores in (("feather", "feather-{}"), ("feather (fp16)", "feather-{} (fp16)")):
        for metric in METRICS:
            values = [alone[scores.format(n)]["scores"][metric] for n in range(3)]
            assert found[name]["scores"][metric] == pytest.approx(np.mean(values))
            assert found[name]["deviations"][metric] == pytest.approx(np.std(values, ddof=1))
    assert found["feather"]["deviations"]["accuracy"] > 0
    assert found["TF-IDF + linear SVM"]["deviations"] is None
    # One seed of each is timed.
    assert [one.name for one in stopwatch.calls[-1]["contenders"]] == [
        "feather", "feather (fp16)", *BASELINES,
    ]  # fmt: skip
    assert len(found["feather"]["latencies"]) == 2
    table = markdown(record)
    for part in ("| feather (3 seeds) ", "| feather (fp16) (3 seeds) ", " ± ", "over seeds"):
        assert part in table


def test_runs_that_differ_in_more_than_their_seed_stay_apart(
    runs: dict[str, Path], stopwatch: Stopwatch, tmp_path: Path
) -> None:
    paths = seeds(runs["tiny"], tmp_path, 0, 1, 2)
    change(paths[2], "config.json", hidden_dim=9)
    record = compared(*paths, group=True)
    assert [row["members"] for row in record["rows"][:2]] == [
        ["feather-0", "feather-1"],
        ["feather-2"],
    ]
    assert [row["model"] for row in record["rows"][:2]] == ["feather", "feather-2"]


def test_without_group_every_seed_is_a_row(
    runs: dict[str, Path], stopwatch: Stopwatch, tmp_path: Path
) -> None:
    record = compared(*seeds(runs["tiny"], tmp_path, 0, 1))
    assert [row["model"] for row in record["rows"]] == ["feather-0", "feather-1", *BASELINES]


# CUDA graphs


def test_replayed_graphs_are_a_row_of_their_own_on_the_gpu(
    runs: dict[str, Path], stopwatch: Stopwatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module_under_test, "timed_devices", lambda _: ["cpu", "cuda"])
    record = compared(runs["tiny"], runs["noisy"], cuda_graphs=True, batch_sizes="1")
    found = by_name(record)
    graphs = ["tiny, CUDA graphs", "noisy, CUDA graphs"]
    assert [*found] == ["tiny", graphs[0], "noisy", graphs[1], *BASELINES]
    places = {name: [it["device"] for it in row["latencies"]] for name, row in found.items()}
    assert places == {
        "tiny": ["cpu", "cuda"], "noisy": ["cpu", "cuda"],
        **{name: ["cpu"] for name in BASELINES}, **{name: ["cuda"] for name in graphs},
    }  # fmt: skip
    assert found[graphs[0]]["scores"] == found["tiny"]["scores"]
    asked = {one.name: one for one in stopwatch.calls[0]["contenders"]}
    assert [name for name, one in asked.items() if one.cuda_graphs] == graphs
    assert asked[graphs[0]].weights == runs["tiny"]


# The report


def test_the_record_is_the_report(written: tuple[Record, list[Latency], Path]) -> None:
    record, latencies, folder = written
    assert set(names(folder)) == FILES
    assert json.loads((folder / "report.json").read_text(encoding="utf-8")) == json.loads(
        json.dumps(record)
    )
    saved = json.loads((folder / "latency.json").read_text(encoding="utf-8"))
    assert saved == json.loads(json.dumps([latency.to_json() for latency in latencies]))
    assert len(saved) == 2 * 4


def test_every_contender_stands_in_every_file(written: tuple[Record, list[Latency], Path]) -> None:
    record, _, folder = written
    models = ["tiny", "noisy", *BASELINES]
    with (folder / "report.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == models
    assert all(None not in row for row in rows)
    for row, figures in zip(rows, record["rows"], strict=True):
        assert float(row["macro_f1"]) == figures["scores"]["macro_f1"]
        assert float(row["cpu_32_p99_ms"]) == figures["latencies"][1]["phases"]["total"]["p99"]
    page = (folder / "report.html").read_text(encoding="utf-8")
    table = (folder / "report.md").read_text(encoding="utf-8")
    for model in models:
        assert escape(model) in page
        assert f"\n| {model} " in table
    assert table == markdown(record)
    for picture in ("trade_off", "confusion_matrices", "per_class"):
        assert (folder / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
        assert f"]({picture}.png)" in table


def test_a_report_takes_the_place_of_an_older_one(
    runs: dict[str, Path], stopwatch: Stopwatch, drawn: None, tmp_path: Path
) -> None:
    compared(runs["noisy"], output_path=tmp_path / "report")
    record = compared(runs["tiny"], output_path=tmp_path / "report")
    assert names(tmp_path) == ["report"]
    assert set(names(tmp_path / "report")) == FILES
    saved = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert saved["reference"] == record["reference"] == "tiny"


def test_what_others_put_beside_a_report_is_never_removed(
    runs: dict[str, Path], stopwatch: Stopwatch, drawn: None, tmp_path: Path
) -> None:
    # A folder in which some other tool left a report.json is foreign as well.
    (tmp_path / "report.json").write_text('{"tests": 3}')
    (tmp_path / "thesis.txt").write_text("years of work")
    try:
        compared(runs["tiny"], output_path=tmp_path)
    except FeatherweightError:
        assert stopwatch.calls == []
        assert (tmp_path / "report.json").read_text() == '{"tests": 3}'
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("kind", ["file", "folder", "run"])
def test_a_foreign_place_is_refused_before_anything_is_loaded(
    runs: dict[str, Path], stopwatch: Stopwatch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    kind: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(module_under_test, "load", None)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    places = {"file": tmp_path / "folder" / "notes.txt", "folder": tmp_path / "folder",
              "run": runs["tiny"]}  # fmt: skip
    before = contents(tmp_path / "folder"), contents(runs["tiny"])
    with pytest.raises(UsageError, match="holds no report") as caught:
        compared(runs["tiny"], output_path=places[kind])
    assert "\n" not in str(caught.value)
    assert (contents(tmp_path / "folder"), contents(runs["tiny"])) == before
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("nth", [0, len(FILES) - 1])
def test_a_full_disk_leaves_the_older_report_or_none(
    written: tuple[Record, list[Latency], Path], drawn: None, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path, older: bool, nth: int,
) -> None:  # fmt: skip
    record, latencies, folder = written
    if older:
        shutil.copytree(folder, tmp_path / "report")
        (tmp_path / "report" / "report.json").write_text("{}")
    before = contents(tmp_path / "report") if older else {}
    flushed = iter(range(100))

    def full(_: int) -> None:
        if next(flushed) == nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        write_report(tmp_path / "report", record, latencies)
    assert next(flushed) == nth + 1
    assert names(tmp_path) == (["report"] if older else [])
    assert older is False or contents(tmp_path / "report") == before


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_a_file_size_limit_is_one_line_and_leaves_the_older_report(
    runs: dict[str, Path], written: tuple[Record, list[Latency], Path], tmp_path: Path
) -> None:
    shutil.copytree(written[2], tmp_path / "report")
    before = contents(tmp_path / "report")
    # The limit comes with the times, so that nothing but the report is written under it, and is
    # hit by the first picture, when most of the report is there.
    code = f"""
import resource, sys
from featherweight import cli
from featherweight.comparison import page
from featherweight.comparison import compare
from featherweight.reports import plots
def measure(*_, **__):
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    return []
compare.measure = measure
page.comparison_page = lambda _: "a page"
plots.trade_off = lambda _: bytes(100_001)
sys.exit(cli.main(["compare", {str(runs["tiny"])!r}, "--output_path", "report"]))
"""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("featherweight: ")]
    assert os.strerror(errno.EFBIG) in line
    assert names(tmp_path) == ["report"]
    assert contents(tmp_path / "report") == before


# What is refused


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no weights": ({"weights": []}, "give the weights"),
    "not there": ({"weights": ["nowhere"]}, "nowhere"),
    "cut off": ({"weights": ["cut-off"]}, "--resume"),
    "no data": ({"weights": [f"tiny/{MODEL}"]}, "--data"),
    "data gone": ({"weights": ["gone"]}, "moods-that-were"),
    "other training data": ({"weights": ["tiny", "elsewhere"]}, "trained on different data"),
    "the same twice": ({"weights": ["tiny", "tiny"]}, "tiny"),
    "the same twice in a group": ({"weights": ["tiny", "tiny"], "group": True}, "tiny"),
    "one name twice": ({"weights": ["tiny", "renamed"]}, "called tiny"),
    "a baseline's name": ({"weights": ["TF-IDF + linear SVM"]}, "called TF-IDF"),
    "other labels": ({"weights": ["tiny", "relabeled"]}, "not comparable"),
    "unknown label": ({"data": "unknown.csv"}, "envy"),
    "no such data": ({"data": "nowhere.csv"}, "nowhere.csv"),
    "no such split": ({"train_path": Path("two.csv")}, "no split 'test'"),
    "empty split": ({"train_path": Path("two.csv"), "test_path": Path("empty.csv")}, "no rows"),
    "one class": ({"train_path": Path("two.csv"), "test_path": Path("one.csv")}, "one class"),
    "one class to train on": ({"train_path": Path("one.csv"), "test_path": Path("two.csv")},
                              "joy"),
    "batch size 0": ({"batch_sizes": "0"}, "--batch_sizes 0"),
    "one batch size 0": ({"batch_sizes": "1,0,32"}, "--batch_sizes 1,0,32"),
    "negative": ({"batch_sizes": "-1"}, "--batch_sizes -1"),
    "junk": ({"batch_sizes": "many"}, "--batch_sizes many"),
    "half a text": ({"batch_sizes": "1.5"}, "--batch_sizes 1.5"),
    "a gap": ({"batch_sizes": "1,,2"}, "--batch_sizes 1,,2"),
    "nothing": ({"batch_sizes": ""}, "--batch_sizes"),
    "superscript": ({"batch_sizes": "²"}, "--batch_sizes"),
    "no threads": ({"threads": 0}, "--threads 0"),
    "negative threads": ({"threads": -2}, "--threads -2"),
    "no CUDA": ({"cuda_graphs": True, "device": "auto"}, "--cuda_graphs"),
    "no CUDA wanted": ({"cuda_graphs": True}, "--cuda_graphs"),
    "negative number": ({"disagreements": -1}, "--disagreements -1"),
    "unknown reference": ({"reference": "nobody"}, "--reference nobody"),
    # Passed over in silence, the comparison would be of other texts than those named.
    "a test file alone": ({"test_path": Path("two.csv")}, "train_path"),
    "a validation file alone": ({"val_path": Path("two.csv"), "split": "validation"},
                                "train_path"),
}  # fmt: skip


@pytest.fixture(scope="module")
def broken(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data and runs that something is wrong with; nobody writes into it."""
    folder = tmp_path_factory.mktemp("broken")
    write(folder / "one.csv", *["so happy,joy"] * 30)
    write(folder / "two.csv", *["so happy,joy", "so sad,sadness"] * 30)
    write(folder / "unknown.csv", *["so happy,joy", "so green,envy"] * 30)
    write(folder / "empty.csv")
    for name in ("tiny", "cut-off", "gone", "elsewhere", "renamed"):
        shutil.copytree(runs["tiny"], folder / name)
    copy_run(runs["tiny"], folder / "TF-IDF + linear SVM")
    relabeled = load(copy_run(runs["tiny"], folder / "relabeled"), "cpu")
    assert isinstance(relabeled, TextClassifier)
    relabeled.labels = ("anger", "joy", "gloom")
    relabeled.save(folder / "relabeled" / MODEL)
    (folder / "cut-off" / CHECKPOINT).write_bytes(b"state")
    change(folder / "gone", "config.json", data="moods-that-were")
    splits = Run(folder / "tiny").read_json("data.json")["splits"]
    splits["test"]["sha256"] = "0f" * 32
    change(folder / "elsewhere", "data.json", splits=splits)
    return folder


@pytest.mark.parametrize(("flags", "says"), WRONG.values(), ids=[*WRONG])
def test_wrong_use_is_one_line_before_anything_is_timed_or_written(
    broken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: dict[str, Any], says: str
) -> None:
    def start(*_: Any) -> None:
        raise AssertionError("something was about to be timed")

    # The real `measure` refuses too, and what it refuses needs no process.
    monkeypatch.setattr(latency, "Worker", start)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.chdir(broken)
    given = {"weights": ["tiny"]} | flags
    weights = [Path(path) for path in given.pop("weights")]
    with pytest.raises(FeatherweightError) as caught:
        compared(*weights, **given, output_path=tmp_path / "report")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert names(tmp_path) == []


# The verb


def test_the_verb_prints_tables_and_says_where_the_report_is(
    runs: dict[str, Path], stopwatch: Stopwatch, drawn: None, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["/somewhere/featherweight", "compare", "a b", "--group"])
    given = [str(runs["tiny"]), str(runs["noisy"]), "--device", "cpu"]
    assert main(["compare", *given, "--output_path", str(tmp_path / "report")]) == 0
    out = capsys.readouterr().out
    for part in ("Quality on moods, test split, n = 12", "Against tiny", "noisy", *BASELINES):
        assert part in out
    assert caplog.messages[-1] == f"report: {tmp_path / 'report' / 'report.html'}"
    report = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "Measured with `featherweight compare 'a b' --group` on " in report


def test_the_verb_prints_the_record_as_json_and_nothing_else(
    runs: dict[str, Path], stopwatch: Stopwatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(runs["tiny"]), "--device", "cpu", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [row["model"] for row in record["rows"]] == ["tiny", *BASELINES]


def test_real_processes_time_what_is_compared(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = partial(latency.measure, min_iterations=1, min_seconds=0.0)
    monkeypatch.setattr(module_under_test, "measure", quick)
    record = compared(runs["tiny"], batch_sizes="1")
    assert [[it["backend"] for it in row["latencies"]] for row in record["rows"]] == [
        ["torch"],
        ["numpy"],
        ["sklearn"],
    ]
    for row in record["rows"]:
        (timing,) = row["latencies"]
        assert (timing["device"], timing["batch_size"]) == ("cpu", 1)
        assert timing["samples"] >= 1
        assert timing["phases"]["total"]["p50"] > 0
        assert row["ratios"]["speed"]["cpu"]["1"] > 0
