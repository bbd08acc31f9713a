import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from featherweight.cli import main
from tests.helpers.comparing import (
    BASELINES,
    LABELS,
    copied,
    finetuned_run,
    names,
)
from tests.helpers.hub_server import SIGNATURE, TOKEN, FakeHub, Repository, environment, serve
from transformer_eval.random_weights import build
from transformer_eval.registry import EMOTIONS, REGISTRY, Pretrained

SCRIPT = Path(__file__).parents[2] / "test_transformer.py"
FILES = {
    "report.json", "report.csv", "report.md", "report.html", "latency.json",
    "trade_off.png", "confusion_matrices.png", "per_class.png",
}  # fmt: skip


TIMED = "partial(latency.measure, min_iterations=1, min_seconds=0.0)"
UNTIMED = "lambda *_, **__: []"
# Runs the script with a short timing or none.
PROGRAM = """
import runpy, sys
from functools import partial
import datasets
datasets.config.USE_PARQUET_EXPORT = False  # it needs a second host, which the fake Hub lacks
from featherweight.comparison import compare
from featherweight.timing import latency
compare.measure = {measure}
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def outputs(tiny_bert: Path, tiny_run: Path, tiny_data: Path, tmp_path: Path) -> Path:
    """A folder of runs in which the LSTM is not the newest."""
    shutil.copytree(tiny_run, tmp_path / "outputs" / "tiny")
    mine = finetuned_run(tiny_bert, tiny_data, tmp_path / "outputs" / "mine")
    newest = (tmp_path / "outputs" / "tiny" / "config.json").stat().st_mtime + 100
    os.utime(mine / "config.json", (newest, newest))
    return tmp_path / "outputs"


@pytest.mark.usefixtures("untimed")
def test_newest_lstm_is_compared_with_its_fp16_copy(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", str(outputs / "mine"), "--output_dir", str(outputs)]

    assert main(["test_transformer", *arguments, "--device", "cpu", "--json"]) == 0

    record = json.loads(capsys.readouterr().out)
    assert names(record) == ["tiny", "tiny (fp16)", "mine", *BASELINES]
    sizes = [row["size_bytes"] for row in record["rows"]]
    assert sizes[1] < sizes[0] < sizes[2]


@pytest.mark.usefixtures("untimed")
def test_transformers_are_compared_without_an_lstm(
    tiny_transformers: Mapping[str, Path],
    tiny_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    models = [str(tiny_transformers[family]) for family in ("bert", "albert")]
    arguments = ["--data", str(tiny_data), "--output_dir", str(tmp_path), "--device", "cpu"]

    assert main(["test_transformer", "--model", *models, *arguments]) == 0

    shown = capsys.readouterr().out
    for name in ("tiny-bert", "tiny-albert", *BASELINES, *LABELS):
        assert name in shown


@pytest.mark.parametrize("flag", ["--model", "--weights"])
def test_failure_is_reported_in_one_line(
    tiny_data: Path,
    tiny_bert: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flag: str,
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    arguments = {"--model": str(tiny_bert), "--data": str(tiny_data), "--output_dir": str(tmp_path)}
    words = [word for pair in (arguments | {flag: str(empty)}).items() for word in pair]

    assert main(["test_transformer", *words]) == 2

    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = [line for line in printed.err.splitlines() if line.startswith("featherweight: ")]
    assert str(empty) in line
    assert "Traceback" not in printed.err


def run_script(
    arguments: Sequence[str | Path], folder: Path, measure: str, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Runs the script in a new process and checks that it prints no secrets."""
    program = PROGRAM.format(measure=measure)
    variables = environment(folder / "home", OMP_NUM_THREADS="1", **settings)
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, [SCRIPT, *arguments]), "--device", "cpu"],
        cwd=folder, env=variables, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    for secret in (TOKEN, SIGNATURE):
        assert secret not in done.stdout + done.stderr
    return done


def test_script_compares_the_newest_lstm_with_a_transformer(outputs: Path) -> None:
    report = outputs.parent / "report"
    flags = ["--batch_sizes", "1", "--json", "--output_path", report]

    done = run_script(["--model", outputs / "mine", *flags], outputs.parent, TIMED)

    record = json.loads(done.stdout)
    assert names(record) == ["tiny", "tiny (fp16)", "mine", *BASELINES]
    assert record["command"].startswith("test_transformer.py --model")
    for row in record["rows"]:
        assert 0 < row["scores"]["accuracy"] <= 1
        assert [timing["batch_size"] for timing in row["latencies"]] == [1]
    assert record["rows"][2]["ratios"]["size"] > 1
    assert {path.name for path in report.iterdir()} == FILES
    assert json.loads((report / "report.json").read_text(encoding="utf-8")) == record


def test_unavailable_model_is_timed_with_random_weights(
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    time_only: Any,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    time_only("tiny", "electra-small")
    flags = ["--latency_only", "--weights", str(tiny_run), "--batch_sizes", "1", "--json"]

    code = main(["test_transformer", "--model", "electra-small", *flags, "--device", "cpu"])

    assert code == 0
    assert "electra-small is timed with random weights" in caplog.text
    record = json.loads(capsys.readouterr().out)
    assert names(record) == ["tiny", "tiny (fp16)", "electra-small", *BASELINES]
    row = record["rows"][2]
    assert row["note"] == "only timed, with random weights and a stand-in for its tokenizer"
    assert (row["scores"], row["tests"]) == ({}, None)
    # Source: Clark et al. (2020), ELECTRA, table 1: 14 million.
    assert 13e6 < row["parameters"] < 14e6
    assert row["size_bytes"] > 4 * row["parameters"]
    assert row["latencies"][0]["total_ms"]["p50"] > 0
    assert row["ratios"]["speed"]["cpu"]["1"] > 0


# Over HTTP


def test_models_and_data_of_the_hub_are_compared(tmp_path: Path) -> None:
    rows = {
        split: [
            (f"{part} of {label} {split}", label)
            for label in EMOTIONS
            for part in ("much", "a bit")
        ]
        for split in ("train", "validation", "test")
    }
    data = {
        f"{split}.csv": "\n".join(["text,label", *map(",".join, examples), ""]).encode()
        for split, examples in rows.items()
    }
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
             "intermediate_size": 32, "initializer_range": 0.5, "vocab_size": 200}  # fmt: skip
    tiny = Pretrained("acme/tiny", "bert", sizes)
    build(tiny, [text for text, _ in rows["train"]], EMOTIONS, tmp_path / "named")
    numbers = {index: f"LABEL_{index}" for index in range(len(EMOTIONS))}
    copied(tmp_path / "named", tmp_path / "numbered", id2label=numbers, label2id=None)
    named, numbered = (
        Repository({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
        for name in ("named", "numbered")
    )
    known = REGISTRY["distilbert-emotion"].hub_id
    repositories = {"acme/tiny": named, known: numbered, "acme/moods": Repository(data)}

    with serve(FakeHub(repositories)) as hub:
        models = ["--model", "acme/tiny", "distilbert-emotion", "--data", "acme/moods"]
        done = run_script(models, tmp_path, UNTIMED, HF_ENDPOINT=hub.endpoint)

    assert {"train.csv", "test.csv", "model.safetensors", "tokenizer.json"} <= hub.files_sent()
    for name in ("tiny", "distilbert-emotion", *BASELINES, *EMOTIONS):
        assert name in done.stdout
    cells = [line.split() for line in done.stdout.splitlines()]
    # The last table has the F1 of each class.
    first, second = ([row[1:] for row in cells if row[:1] == [name]][-1]
                     for name in ("tiny", "distilbert-emotion"))  # fmt: skip
    assert len(first) == len(EMOTIONS) and len(set(first)) > 1
    # The registry has the names of the classes that the config only numbers.
    assert second == first
