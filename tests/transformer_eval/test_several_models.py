import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from featherweight import load
from featherweight.cli import main
from featherweight.config import CompareConfig
from featherweight.errors import FeatherweightError, UsageError, WeightsError
from transformer_eval import several_models as module
from transformer_eval.config import FinetuneConfig
from transformer_eval.several_models import train_each

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A folder with two models that can be had and a broken one between them by name."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("anna", "bert", "carl"):
        shutil.copytree(tiny_bert, folder / name)
    weights = folder / "bert" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    return folder


def flags(data: Path, output_dir: Path, models: list[Path], *more: str) -> list[str]:
    given = {"data": data, "output_dir": output_dir, "epochs": 1, "batch_size": 8,
             "precision": "fp32", "device": "cpu", "name": "three"}  # fmt: skip
    return [
        *("finetune", "--model", *map(str, models)),
        *(f"--{name}={value}" for name, value in given.items()),
        *more,
    ]


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[CompareConfig]:
    """What was to be compared; the comparison itself, which takes long, is refused."""
    seen: list[CompareConfig] = []

    def stop(config: CompareConfig) -> NoReturn:
        seen.append(config)
        raise UsageError("enough")

    monkeypatch.setattr(module, "contest", stop)
    return seen


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path, family: Path) -> Any:
    """What came of a series of which the second model fails: process and output folder."""
    outputs = tmp_path_factory.mktemp("outputs")
    models = [family / name for name in ("anna", "bert", "carl")]
    ended = subprocess.run(
        [sys.executable, "-m", "featherweight.cli", *flags(tiny_data, outputs, models)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    return ended, outputs


def test_one_that_fails_does_not_stop_the_others(three: Any, family: Path) -> None:
    ended, outputs = three
    assert sorted(path.name for path in outputs.iterdir()) == [
        "three-anna", "three-carl", "three-report",
    ]  # fmt: skip
    for name in ("three-anna", "three-carl"):
        assert load(outputs / name, "cpu").name == name
        assert json.loads((outputs / name / "config.json").read_text())["model"] == [
            str(family / name.removeprefix("three-"))
        ]
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f"featherweight: 1 of 3 failed: {family / 'bert'} (")
    assert "anna" not in last
    assert "Traceback" not in ended.stderr


def test_report_says_what_each_costs_and_gives(three: Any) -> None:
    ended, outputs = three
    assert f"report: {outputs / 'three-report'}" in ended.stdout
    assert "{" not in ended.stdout
    record = json.loads((outputs / "three-report" / "report.json").read_text())
    assert (record["data"]["split"], record["data"]["n"]) == ("test", 12)
    rows = {row["model"]: row for row in record["rows"]}
    assert list(rows)[:2] == ["three-anna", "three-carl"]
    for name in ("three-anna", "three-carl"):
        row = rows[name]
        assert name in ended.stdout
        assert {"accuracy", "macro_f1", "weighted_f1"} <= row["scores"].keys()
        assert len(row["per_class"]) == len(row["confusion_matrix"]) == 3
        assert sum(map(sum, row["confusion_matrix"])) == 12
        shipped = (outputs / name / "transformer").iterdir()
        assert row["size_bytes"] == sum(path.stat().st_size for path in shipped)
        times = [latency for latency in row["latencies"] if latency["device"] == "cpu"]
        assert {latency["batch_size"] for latency in times} == {1, 32}
    assert (outputs / "three-report" / "report.html").exists()


def test_resumed_series_keeps_what_is_finished(
    three: Any,
    tiny_data: Path,
    tmp_path: Path,
    tiny_bert: Path,
    compared: list[CompareConfig],
    caplog: pytest.LogCaptureFixture,
) -> None:
    outputs = tmp_path / "outputs"
    shutil.copytree(three[1], outputs)
    models = [tmp_path / "models" / name for name in ("anna", "bert", "carl")]
    for model in models:
        shutil.copytree(tiny_bert, model)
    kept = [outputs / "three-anna", outputs / "three-carl"]
    before = {path: path.stat().st_mtime_ns for run in kept for path in run.rglob("*")}
    assert main(flags(tiny_data, outputs, models, "--resume")) == 2
    assert {path: path.stat().st_mtime_ns for run in kept for path in run.rglob("*")} == before
    assert caplog.text.count("epoch 1/1") == 1
    assert load(outputs / "three-bert", "cpu").name == "three-bert"
    (config,) = compared
    assert config.weights == [kept[0], outputs / "three-bert", kept[1]]
    assert (config.split, config.output_path) == ("test", outputs / "three-report")


def test_single_model_gives_a_run_of_just_that_name_and_no_report(
    tiny_data: Path, tmp_path: Path, family: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(flags(tiny_data, tmp_path, [family / "anna"])) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["three"]
    assert capfd.readouterr().out.endswith(f"\nrun: {tmp_path / 'three'}\n")
    assert main(flags(tiny_data, tmp_path, [family / "bert"], "--name=broken")) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["three"]


def test_two_processes_fail_together_and_go_on_together(
    tiny_data: Path, tmp_path: Path, family: Path
) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    models = [family / "bert", family / "anna"]
    ended = subprocess.run(
        [*launch, "-m", "featherweight.cli", *flags(tiny_data, tmp_path, models)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.returncode == 1
    assert "1 of 2 failed" in ended.stderr
    assert "2 process(es)" in (tmp_path / "three-anna" / "training.log").read_text()
    assert ended.stdout.count("report: ") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["three-anna", "three-report"]


def config(tmp_path: Path, *models: str, **changes: Any) -> FinetuneConfig:
    return FinetuneConfig(model=list(models), output_dir=tmp_path, **changes)


@pytest.fixture
def asked() -> list[tuple[str, str, list[str]]]:
    """What was to be made: model, name of the run, models in its config."""
    return []


@pytest.fixture
def helper(asked: list[Any]) -> Callable[[FinetuneConfig, str], None]:
    """A maker in a process that only helps another: it makes no run."""

    def make(config: FinetuneConfig, model: str) -> None:
        asked.append((model, config.name, config.model))

    return make


def test_runs_are_named_after_the_series_and_their_model(
    tmp_path: Path, asked: list[Any], helper: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    train_each(config(tmp_path, "distilbert", "acme/Tiny.v2", "some/where/mine/", name="a"), helper)
    assert asked == [
        ("distilbert", "a-distilbert", ["distilbert"]),
        ("acme/Tiny.v2", "a-Tiny.v2", ["acme/Tiny.v2"]),
        ("some/where/mine/", "a-mine", ["some/where/mine/"]),
    ]
    assert capsys.readouterr().out == ""


def test_nameless_series_is_called_after_the_time(
    tmp_path: Path, asked: list[Any], helper: Any
) -> None:
    train_each(config(tmp_path, "distilbert", "bert-base"), helper)
    first, second = (name for _, name, _ in asked)
    assert re.fullmatch(r"models-\d{8}-\d{6}-distilbert", first)
    assert second == first.replace("distilbert", "bert-base")


def test_one_model_keeps_the_name_it_was_given(
    tmp_path: Path, asked: list[Any], helper: Any
) -> None:
    train_each(config(tmp_path, "distilbert", name="mine"), helper)
    train_each(config(tmp_path, "distilbert"), helper)
    assert [name for _, name, _ in asked] == ["mine", ""]


def test_all_stands_for_every_model_that_has_no_head_yet(
    tmp_path: Path, asked: list[Any], helper: Any
) -> None:
    train_each(config(tmp_path, "all", name="a"), helper)
    names = [model for model, _, _ in asked]
    assert {"distilbert", "minilm"} <= set(names)
    assert not [name for name in names if name.endswith("-emotion")]


@pytest.mark.parametrize(
    ("models", "changes", "message"),
    [
        (["acme/bert", "other/bert"], {"name": "a", "overwrite": True}, "two of them .* a-bert"),
        (["acme/bert", "models/bert/"], {}, "two of them"),
        (["acme/bert", "acme/bert"], {}, "twice"),
        (["acme/bert", "acme/other"], {"resume": True}, "needs the --name"),
        ([], {}, "give --model"),
    ],
)
def test_models_whose_runs_could_not_be_told_apart_are_refused(
    tmp_path: Path, asked: list[Any], helper: Any, models: list[str], changes: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        train_each(config(tmp_path, *models, **changes), helper)
    assert "\n" not in str(caught.value)
    assert asked == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (WeightsError("no weights"), "no weights"),
        (RuntimeError("CUDA out of memory\nTried to allocate much"), "CUDA out of memory"),
        (ValueError(""), "ValueError"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_every_failure_is_named_in_one_line(
    tmp_path: Path, error: Exception, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> NoReturn:
        raise error

    with pytest.raises(FeatherweightError) as caught:
        train_each(config(tmp_path, "distilbert", "bert-base", name="a"), fail)
    message = str(caught.value)
    assert message.startswith("2 of 2 failed: distilbert (")
    assert message.count(reason) == 2
    assert "bert-base (" in message
    assert "\n" not in message
    assert caught.value.exit_code == 1
    assert "distilbert failed: " in caplog.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, AssertionError])
def test_interrupt_and_bugs_end_the_series(
    tmp_path: Path, asked: list[Any], error: type[BaseException]
) -> None:
    def fail(_: Any, model: str) -> NoReturn:
        asked.append(model)
        raise error

    with pytest.raises(error):
        train_each(config(tmp_path, "distilbert", "bert-base", name="a"), fail)
    assert asked == ["distilbert"]


def test_single_failure_keeps_its_kind(tmp_path: Path) -> None:
    def fail(*_: Any) -> NoReturn:
        raise WeightsError("no weights")

    with pytest.raises(WeightsError, match=r"^no weights$"):
        train_each(config(tmp_path, "distilbert"), fail)


def test_without_a_test_split_the_runs_are_compared_on_validation(
    tiny_data: Path, tmp_path: Path, family: Path, compared: list[CompareConfig]
) -> None:
    (tmp_path / "data").mkdir()
    for split in ("train", "validation"):
        shutil.copy(tiny_data / f"{split}.csv", tmp_path / "data")
    models = [family / "anna", family / "carl"]
    assert main(flags(tmp_path / "data", tmp_path, models)) == 2
    assert compared[0].split == "validation"
    assert [path.name for path in compared[0].weights] == ["three-anna", "three-carl"]
