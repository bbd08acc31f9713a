import csv
import errno
import json
import os
import re
import shutil
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
from featherweight.comparison import entrants, page, plots
from featherweight.comparison.compare import batch_sizes, compare, write_report
from featherweight.comparison.text import PICTURES, markdown, terminal
from featherweight.config import CompareConfig
from featherweight.errors import FeatherweightError, UsageError
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
    """Replaces `measure`, whose processes take seconds: records its calls and makes up times.

    The n-th contender needs n ms for one text on the CPU, and a tenth of it on the GPU.
    """

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(
        self, contenders: Sequence[Contender], texts: Sequence[str], **options: Any
    ) -> list[Latency]:
        self.calls.append({"contenders": contenders, "texts": texts} | options)
        return [
            self.latency(one.name, device, size, number / (1 if device == "cpu" else 10))
            for device in options["devices"]
            for number, one in enumerate(contenders, start=1)
            if one.runs_on(device)
            for size in options["batch_sizes"]
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
    """Replaces pictures and page, which take seconds."""
    monkeypatch.setattr(plots, "pictures", lambda _: dict.fromkeys(PICTURES, b"a picture"))
    monkeypatch.setattr(page, "comparison_page", lambda *_: "a page")


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
    """Runs that are not written into."""
    folder = tmp_path_factory.mktemp("runs")
    noisy = copy_run(tiny_run, folder / "noisy", noise=0.5)
    permuted = copy_run(tiny_run, folder / "permuted", permuted=True)
    return {"tiny": tiny_run, "noisy": noisy, "permuted": permuted}


@pytest.fixture(scope="module")
def written(
    runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Record, list[Latency], Path]]:
    """A comparison with every option, its latencies, and its report."""
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


def test_weights_come_first_and_all_are_timed_together_on_the_texts_of_the_split(
    runs: dict[str, Path], stopwatch: Stopwatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    record = compared(runs["tiny"], runs["noisy"], batch_sizes="4, 1", threads=2)
    assert [row["model"] for row in record["rows"]] == ["tiny", "noisy", *BASELINES]
    assert record["reference"] == "tiny"
    saved = Run(runs["tiny"]).read_json("data.json")
    assert record["data"] == {
        "name": "moods", "split": "test", "n": 12, "labels": saved["labels"],
        "missing_classes": [],
        "sha256": saved["splits"]["test"]["sha256"],
    }  # fmt: skip
    assert (record["threads"], record["disagreements"]) == (2, [])
    assert record["environment"]["cpu"]["model"]
    assert all(row["robustness"] == [] for row in record["rows"])
    assert names(tmp_path) == []

    (call,) = stopwatch.calls
    assert [one.name for one in call["contenders"]] == ["tiny", "noisy", *BASELINES]
    assert [one.weights for one in call["contenders"]] == [runs["tiny"], runs["noisy"], None, None]
    assert (len(call["texts"]), len(call["train"])) == (12, 36)
    assert (call["batch_sizes"], call["devices"], call["threads"]) == ([4, 1], ["cpu"], 2)
    svm = by_name(record)["TF-IDF + linear SVM"]
    medians = [(timed["batch_size"], timed["total_ms"]["p50"]) for timed in svm["latencies"]]
    assert medians == [(4, 16), (1, 4)]
    assert svm["ratios"]["speed"] == {"cpu": {"4": 0.25, "1": 0.25}}


@pytest.mark.parametrize("first", ["tiny", "permuted"])
def test_labels_are_matched_by_name_and_copies_show_no_difference(
    runs: dict[str, Path], stopwatch: Stopwatch, first: str
) -> None:
    weights = sorted((runs["tiny"], runs["permuted"]), key=lambda path: path.name != first)
    assert load(weights[0]).labels != load(weights[1]).labels
    record = compared(*weights)
    found = by_name(record)
    for key in ("per_class", "confusion_matrix", "scores", "intervals"):
        assert found["permuted"][key] == found["tiny"][key]
    assert found["permuted"]["ece"] == pytest.approx(found["tiny"]["ece"])
    assert found["tiny"]["per_class"]["joy"]["support"] == 4
    assert record["data"]["labels"] == list(load(weights[0]).labels)
    tests = record["rows"][1]["tests"]
    assert {tests[metric]["verdict"] for metric in METRICS} == {"no difference shown (n = 12)"}


def test_comparison_is_reproducible_to_the_digit(
    runs: dict[str, Path], stopwatch: Stopwatch, written: tuple[Record, list[Latency], Path]
) -> None:
    weights = [runs["tiny"], runs["noisy"]]
    again = compared(*weights, reference="noisy", robustness=True, disagreements=4)
    assert again["rows"] == written[0]["rows"]
    assert again["disagreements"] == written[0]["disagreements"]


def test_validation_split_and_other_data_can_be_compared_on(
    runs: dict[str, Path], stopwatch: Stopwatch, tmp_path: Path
) -> None:
    validation = compared(runs["tiny"], split="validation")["data"]
    assert (validation["split"], validation["n"]) == ("validation", 12)
    rows = [f"happy {n},joy\nsad {n},sadness" for n in range(30)]
    data = write(tmp_path / "others.csv", *rows)
    portable = runs["tiny"] / MODEL
    other = compared(portable, data=str(data))["data"]
    assert (other["name"], other["split"], other["n"]) == ("others", "test", 6)


def test_portable_file_is_compared_on_the_data_of_another_run(
    runs: dict[str, Path], stopwatch: Stopwatch
) -> None:
    record = compared(runs["noisy"] / MODEL, runs["tiny"])
    assert [row["model"] for row in record["rows"][:2]] == ["noisy", "tiny"]
    assert record["data"]["name"] == "moods"


def test_baselines_are_not_fitted_on_leaked_texts(
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
    assert [len(call["train"]) for call in stopwatch.calls] == [36, 36]


def test_robustness_is_shown_on_request(written: tuple[Record, list[Latency], Path]) -> None:
    record = written[0]
    for row in record["rows"]:
        perturbations = [result["perturbation"] for result in row["robustness"]]
        assert {"upper case", "typos"} <= set(perturbations)
        assert perturbations == [
            result["perturbation"] for result in record["rows"][0]["robustness"]
        ]
    (constant,) = [row for row in record["rows"] if row["model"] == "most frequent class"]
    assert {result["changed"] for result in constant["robustness"]} == {0}


def test_disagreements_are_shown_on_request(written: tuple[Record, list[Latency], Path]) -> None:
    record = written[0]
    assert 0 < len(record["disagreements"]) <= 4
    for item in record["disagreements"]:
        assert set(item["answers"]) == {"tiny", "noisy", *BASELINES}
        assert len(set(item["answers"].values())) > 1
        assert {item["target"], *item["answers"].values()} <= set(record["data"]["labels"])
    numbers = [len(set(item["answers"].values())) for item in record["disagreements"]]
    assert numbers == sorted(numbers, reverse=True)


def test_others_are_tested_against_the_reference(
    written: tuple[Record, list[Latency], Path],
) -> None:
    record = written[0]
    found = by_name(record)
    assert record["reference"] == "noisy"
    assert found["noisy"]["tests"] is None
    difference = found["tiny"]["scores"]["accuracy"] - found["noisy"]["scores"]["accuracy"]
    assert found["tiny"]["tests"]["accuracy"]["difference"] == pytest.approx(difference)
    assert found["tiny"]["ratios"]["speed"] == {"cpu": {"1": 2, "32": 2}}


# Variants


def test_rejected_variant_is_marked_and_an_accepted_one_is_not(
    runs: dict[str, Path], stopwatch: Stopwatch, tmp_path: Path
) -> None:
    origin = copy_run(runs["tiny"], tmp_path / "outputs" / "tiny")
    config = CompressConfig(weights=origin, method="fp16", device="cpu")
    variant = compress_run(config)[0].path
    accepted = compared(origin, variant)
    assert [*by_name(accepted)] == ["tiny", "tiny (fp16)", *BASELINES]
    assert "rejected" not in terminal(accepted)
    found = by_name(accepted)["tiny (fp16)"]
    assert (found["rejected"], found["method"], found["origin"]) == ("", "fp16", "tiny")

    reason = "it loses 0.0500 of validation macro-F1, 0.01 is allowed"
    change(variant, "compression.json", rejected=reason)
    record = compared(origin, variant)
    assert [row["rejected"] for row in record["rows"]] == ["", reason, "", ""]
    assert [row["method"] for row in record["rows"]] == ["", "fp16", "", ""]
    # It is evaluated and timed like any other.
    assert by_name(record)["tiny (fp16)"] == found | {"rejected": reason}
    assert f"tiny (fp16, rejected): rejected: {reason}" in terminal(record)
    assert "| tiny (fp16, rejected) " in markdown(record)


# Seeds


def seeds(origin: Path, folder: Path, *numbers: int) -> list[Path]:
    paths = []
    for number in numbers:
        path = copy_run(origin, folder / f"feather-{number}", noise=number / 2)
        change(path, "config.json", seed=number, name=path.name)
        paths.append(path)
    return paths


def test_seeds_are_grouped_and_their_variants_and_other_runs_are_not(
    runs: dict[str, Path], stopwatch: Stopwatch, tmp_path: Path
) -> None:
    zero, one, two = seeds(runs["tiny"], tmp_path, 0, 1, 2)
    change(two, "config.json", hidden_dim=9)
    halves = [
        compress_run(CompressConfig(weights=path, method="fp16", device="cpu"))[0].path
        for path in (zero, one)
    ]
    alone = by_name(compared(zero, one, *halves))
    members = {
        "feather": ["feather-0", "feather-1"],
        "feather (fp16)": ["feather-0 (fp16)", "feather-1 (fp16)"],
    }
    # Without --group, every seed is a row.
    assert [*alone] == [*members["feather"], *members["feather (fp16)"], *BASELINES]

    # In any order: the runs' configurations determine the groups.
    record = compared(zero, *halves, two, one, group=True, disagreements=12)
    found = by_name(record)
    assert [*found] == ["feather", "feather (fp16)", "feather-2", *BASELINES]
    for name, seeds_of_one in members.items():
        assert found[name]["members"] == seeds_of_one
        for metric in METRICS:
            values = [alone[seed]["scores"][metric] for seed in seeds_of_one]
            assert found[name]["scores"][metric] == pytest.approx(np.mean(values))
            assert found[name]["deviations"][metric] == pytest.approx(np.std(values, ddof=1))
    assert found["feather"]["deviations"]["accuracy"] > 0
    assert found["TF-IDF + linear SVM"]["deviations"] is None
    # One seed of each is timed.
    assert [contender.name for contender in stopwatch.calls[-1]["contenders"]] == [*found]
    assert len(found["feather"]["latencies"]) == 2
    table = markdown(record)
    for part in ("| feather (2 seeds) ", "| feather (fp16) (2 seeds) ", " ± ", "over seeds"):
        assert part in table


# CUDA graphs


def test_cuda_graphs_are_a_separate_row(
    runs: dict[str, Path], stopwatch: Stopwatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module_under_test, "timed_devices", lambda _: ["cpu", "cuda"])
    record = compared(runs["tiny"], runs["noisy"], cuda_graphs=True, batch_sizes="1")
    found = by_name(record)
    graphs = ["tiny, CUDA graphs", "noisy, CUDA graphs"]
    assert [*found] == ["tiny", graphs[0], "noisy", graphs[1], *BASELINES]
    places = {name: [timed["device"] for timed in row["latencies"]] for name, row in found.items()}
    assert places == {
        "tiny": ["cpu", "cuda"], "noisy": ["cpu", "cuda"],
        **{name: ["cpu"] for name in BASELINES}, **{name: ["cuda"] for name in graphs},
    }  # fmt: skip
    assert found[graphs[0]]["scores"] == found["tiny"]["scores"]
    contenders = {one.name: one for one in stopwatch.calls[0]["contenders"]}
    assert [name for name, one in contenders.items() if one.cuda_graphs] == graphs
    assert contenders[graphs[0]].weights == runs["tiny"]


# The report


def test_report_holds_the_record(written: tuple[Record, list[Latency], Path]) -> None:
    record, latencies, folder = written
    assert set(names(folder)) == FILES
    assert json.loads((folder / "report.json").read_text(encoding="utf-8")) == json.loads(
        json.dumps(record)
    )
    saved = json.loads((folder / "latency.json").read_text(encoding="utf-8"))
    assert saved == json.loads(json.dumps([latency.to_json() for latency in latencies]))
    assert len(saved) == 2 * 4


def test_every_model_is_in_every_file(written: tuple[Record, list[Latency], Path]) -> None:
    record, _, folder = written
    models = ["tiny", "noisy", *BASELINES]
    with (folder / "report.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == models
    assert all(None not in row for row in rows)
    for row, figures in zip(rows, record["rows"], strict=True):
        assert float(row["macro_f1"]) == figures["scores"]["macro_f1"]
        assert float(row["cpu_32_p99_ms"]) == figures["latencies"][1]["total_ms"]["p99"]
    html = (folder / "report.html").read_text(encoding="utf-8")
    table = (folder / "report.md").read_text(encoding="utf-8")
    for model in models:
        assert escape(model) in html
        assert f"\n| {model} " in table
    assert table == markdown(record)
    for picture in PICTURES:
        assert (folder / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
        assert f"]({picture}.png)" in table


def test_report_replaces_an_older_one(
    runs: dict[str, Path], stopwatch: Stopwatch, drawn: None, tmp_path: Path,
    written: tuple[Record, list[Latency], Path],
) -> None:  # fmt: skip
    shutil.copytree(written[2], tmp_path / "report")
    record = compared(runs["tiny"], output_path=tmp_path / "report")
    assert names(tmp_path) == ["report"]
    assert set(names(tmp_path / "report")) == FILES
    saved = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert saved["reference"] == record["reference"] == "tiny"


def test_other_files_in_a_report_folder_are_never_removed(
    runs: dict[str, Path], stopwatch: Stopwatch, drawn: None, tmp_path: Path
) -> None:
    # The report.json may be of another tool.
    (tmp_path / "report.json").write_text('{"tests": 3}')
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="is not a report"):
        compared(runs["tiny"], output_path=tmp_path)
    assert stopwatch.calls == []
    assert (tmp_path / "report.json").read_text() == '{"tests": 3}'
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("kind", ["file", "folder", "run"])
def test_output_path_that_is_not_a_report_is_refused_before_anything_is_loaded(
    runs: dict[str, Path], stopwatch: Stopwatch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    kind: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(entrants, "load", None)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    places = {"file": tmp_path / "folder" / "notes.txt", "folder": tmp_path / "folder",
              "run": runs["tiny"]}  # fmt: skip
    before = contents(tmp_path / "folder"), contents(runs["tiny"])
    with pytest.raises(UsageError, match="is not a report") as caught:
        compared(runs["tiny"], output_path=places[kind])
    assert "\n" not in str(caught.value)
    assert (contents(tmp_path / "folder"), contents(runs["tiny"])) == before
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("nth", [0, len(FILES) - 1])
def test_full_disk_keeps_the_older_report(
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


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no file size limit")
def test_file_size_limit_is_one_line_and_keeps_the_older_report(
    runs: dict[str, Path], written: tuple[Record, list[Latency], Path], drawn: None,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    import resource

    shutil.copytree(written[2], tmp_path / "report")
    before = contents(tmp_path / "report")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def measure(*_: Any, **__: Any) -> list[Latency]:
        # Set here, so that the limit applies to nothing but the report, and hits the pictures.
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        return []

    monkeypatch.setattr(module_under_test, "measure", measure)
    monkeypatch.setattr(plots, "pictures", lambda _: dict.fromkeys(PICTURES, bytes(100_001)))
    try:
        code = main(["compare", str(runs["tiny"]), "--output_path", str(tmp_path / "report")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 1
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert out == ""
    (line,) = [line for line in err.splitlines() if line.startswith("featherweight: ")]
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
    "listed twice": ({"weights": ["tiny", "tiny"]}, "tiny"),
    "listed twice in a group": ({"weights": ["tiny", "tiny"], "group": True}, "tiny"),
    "equal names": ({"weights": ["tiny", "renamed"]}, "called tiny"),
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
    "no threads": ({"threads": 0}, "--threads 0"),
    "negative threads": ({"threads": -2}, "--threads -2"),
    "no CUDA": ({"cuda_graphs": True, "device": "auto"}, "--cuda_graphs"),
    "no CUDA wanted": ({"cuda_graphs": True}, "--cuda_graphs"),
    "negative number": ({"disagreements": -1}, "--disagreements -1"),
    "unknown reference": ({"reference": "unknown"}, "--reference unknown"),
    # If this was ignored, the comparison would be on other texts than those named.
    "a test file alone": ({"test_path": Path("two.csv")}, "train_path"),
    "a validation file alone": ({"val_path": Path("two.csv"), "split": "validation"},
                                "train_path"),
}  # fmt: skip


@pytest.fixture(scope="module")
def broken(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of broken data and runs, which is not written into."""
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


@pytest.mark.parametrize("flag", ["0", "1,0,32", "-1", "many", "1.5", "1,,2", "", "²"])
def test_invalid_batch_sizes_are_refused(flag: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"--batch_sizes {flag}: ")):
        batch_sizes(flag)


@pytest.mark.parametrize(("flags", "message"), WRONG.values(), ids=[*WRONG])
def test_wrong_use_is_one_line_before_anything_is_timed_or_written(
    broken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: dict[str, Any],
    message: str,
) -> None:  # fmt: skip
    def start(*_: Any) -> None:
        raise AssertionError("something was about to be timed")

    # The real `measure` also checks its arguments, without starting a process.
    monkeypatch.setattr(latency, "Worker", start)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.chdir(broken)
    options = {"weights": ["tiny"]} | flags
    weights = [Path(path) for path in options.pop("weights")]
    with pytest.raises(FeatherweightError) as caught:
        compared(*weights, **options, output_path=tmp_path / "report")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert names(tmp_path) == []


# The verb


def test_verb_prints_tables_and_the_path_of_the_report(
    runs: dict[str, Path], stopwatch: Stopwatch, drawn: None, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["/somewhere/featherweight", "compare", "a b", "--group"])
    arguments = [str(runs["tiny"]), str(runs["noisy"]), "--device", "cpu"]
    assert main(["compare", *arguments, "--output_path", str(tmp_path / "report")]) == 0
    out = capsys.readouterr().out
    for part in ("Quality on moods, test split, n = 12", "Against tiny", "noisy", *BASELINES):
        assert part in out
    assert caplog.messages[-1] == f"report: {tmp_path / 'report' / 'report.html'}"
    report = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "Measured with `featherweight compare 'a b' --group` on " in report


def test_verb_prints_only_the_record_as_json(
    runs: dict[str, Path], stopwatch: Stopwatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(runs["tiny"]), "--device", "cpu", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [row["model"] for row in record["rows"]] == ["tiny", *BASELINES]


def test_models_are_timed_in_real_processes(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = partial(latency.measure, min_iterations=1, min_seconds=0.0)
    monkeypatch.setattr(module_under_test, "measure", quick)
    record = compared(runs["tiny"], batch_sizes="1")
    assert [[timed["backend"] for timed in row["latencies"]] for row in record["rows"]] == [
        ["torch"],
        ["numpy"],
        ["sklearn"],
    ]
    for row in record["rows"]:
        (timing,) = row["latencies"]
        assert (timing["device"], timing["batch_size"]) == ("cpu", 1)
        assert timing["samples"] >= 1
        assert timing["total_ms"]["p50"] > 0
        assert row["ratios"]["speed"]["cpu"]["1"] > 0
