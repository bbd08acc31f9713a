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
from tests.helpers.finetuning import small, train, weights
from transformer_eval import several_models
from transformer_eval.config import FinetuneConfig
from transformer_eval.several_models import run_models

ROOT = Path(__file__).parents[2]
# The command with a short timing of the fine-tuned models.
PROGRAM = """
import sys
from featherweight import cli
from featherweight.comparison import compare
from featherweight.timing import latency

def measure(contenders, *arguments, **options):
    tuned = [contender for contender in contenders if contender.name.startswith("three-")]
    return latency.measure(tuned, *arguments, min_iterations=1, min_seconds=0.0, **options)

compare.measure = measure
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A folder with two usable models and a broken one, whose name is in the middle."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("anna", "bert", "carl"):
        shutil.copytree(tiny_bert, folder / name)
    weights = folder / "bert" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    return folder


def flags(data: Path, output_dir: Path, models: list[Path], *more: str) -> list[str]:
    values = {"data": data, "output_dir": output_dir, "epochs": 1, "batch_size": 8,
              "learning_rate": 1e-3, "precision": "fp32", "device": "cpu",
              "name": "three"}  # fmt: skip
    return [
        *("finetune", "--model", *map(str, models)),
        *(f"--{name}={value}" for name, value in values.items()),
        *more,
    ]


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[CompareConfig]:
    """Records the options of the comparison, and stops before it because it takes long."""
    seen: list[CompareConfig] = []

    def stop(config: CompareConfig) -> NoReturn:
        seen.append(config)
        raise UsageError("enough")

    monkeypatch.setattr(several_models, "compare", stop)
    return seen


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path, family: Path) -> Any:
    """The process and output folder of three models, the second of which fails."""
    outputs = tmp_path_factory.mktemp("outputs")
    models = [family / name for name in ("anna", "bert", "carl")]
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, *flags(tiny_data, outputs, models)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    return ended, outputs


def test_model_that_fails_does_not_stop_the_others(three: Any, family: Path) -> None:
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


def test_stdout_has_the_report_and_stderr_the_epochs(three: Any) -> None:
    ended, outputs = three
    assert f"report: {outputs / 'three-report'}" in ended.stdout
    for word in ("{", "epoch 1/1", "train_runtime", "eval_"):
        assert word not in ended.stdout
    assert ended.stderr.count("epoch 1/1") == 2
    assert "train_runtime" not in ended.stderr


def test_training_in_another_process_gives_the_same_weights(
    three: Any, tiny_data: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    _, outputs = three
    here = train(small(tiny_data, tmp_path, tiny_bert, epochs=1))
    assert weights(here) == weights(outputs / "three-anna")


def test_report_has_quality_size_and_speed_of_each_model(three: Any) -> None:
    ended, outputs = three
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


def test_resume_keeps_finished_runs(
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
    anna, bert, carl = (outputs / f"three-{model.name}" for model in models)
    before = {path: path.stat().st_mtime_ns for run in (anna, carl) for path in run.rglob("*")}
    assert main(flags(tiny_data, outputs, models, "--resume")) == 2
    after = {path: path.stat().st_mtime_ns for run in (anna, carl) for path in run.rglob("*")}
    assert after == before
    assert caplog.text.count("epoch 1/1") == 1
    assert load(bert, "cpu").name == "three-bert"
    (config,) = compared
    assert config.weights == [anna, bert, carl]
    assert (config.split, config.output_path) == ("test", outputs / "three-report")


def test_single_model_creates_a_run_of_the_given_name_and_no_report(
    tiny_data: Path, tmp_path: Path, family: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(flags(tiny_data, tmp_path, [family / "anna"])) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["three"]
    printed = capfd.readouterr().out
    assert "macro average" in printed
    assert printed.endswith(f"\nrun: {tmp_path / 'three'}\n")
    for word in ("{", "epoch", "train_runtime", "eval_"):
        assert word not in printed
    assert main(flags(tiny_data, tmp_path, [family / "bert"], "--name=broken")) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["three"]


def test_two_processes_fail_together_and_continue_together(
    tiny_data: Path, tmp_path: Path, family: Path
) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    models = [family / "bert", family / "anna"]
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.replace("= measure", "= lambda *_, **__: []"))
    ended = subprocess.run(
        [*launch, program, *flags(tiny_data, tmp_path, models)],
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
    created = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert created == {"three-anna", "three-report"}


def config(tmp_path: Path, *models: str, **changes: Any) -> FinetuneConfig:
    return FinetuneConfig(model=list(models), output_dir=tmp_path, **changes)


@pytest.fixture
def calls() -> list[tuple[str, str, list[str]]]:
    """Model, name of the run and models in its config of each call of `record`."""
    return []


@pytest.fixture
def record(calls: list[Any]) -> Callable[[FinetuneConfig, str], None]:
    """Acts like `finetune` in a process that is not the first one: it returns no run."""

    def run_model(config: FinetuneConfig, model: str) -> None:
        calls.append((model, config.name, config.model))

    return run_model


def test_runs_are_named_after_prefix_and_model(
    tmp_path: Path, calls: list[Any], record: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run_models(config(tmp_path, "distilbert", "acme/Tiny.v2", "some/where/mine/", name="a"), record)
    assert calls == [
        ("distilbert", "a-distilbert", ["distilbert"]),
        ("acme/Tiny.v2", "a-Tiny.v2", ["acme/Tiny.v2"]),
        ("some/where/mine/", "a-mine", ["some/where/mine/"]),
    ]
    assert capsys.readouterr().out == ""


def test_default_prefix_is_the_time(tmp_path: Path, calls: list[Any], record: Any) -> None:
    run_models(config(tmp_path, "distilbert", "bert-base"), record)
    first, second = (name for _, name, _ in calls)
    assert re.fullmatch(r"models-\d{8}-\d{6}-distilbert", first)
    assert second == first.replace("distilbert", "bert-base")


def test_single_model_keeps_the_given_name(tmp_path: Path, calls: list[Any], record: Any) -> None:
    run_models(config(tmp_path, "distilbert", name="mine"), record)
    run_models(config(tmp_path, "distilbert"), record)
    assert [name for _, name, _ in calls] == ["mine", ""]


def test_all_means_every_model_without_a_trained_head(
    tmp_path: Path, calls: list[Any], record: Any
) -> None:
    run_models(config(tmp_path, "all", name="a"), record)
    names = [model for model, _, _ in calls]
    assert {"distilbert", "minilm"} <= set(names)
    assert not [name for name in names if name.endswith("-emotion")]


@pytest.mark.parametrize(
    ("models", "changes", "message"),
    [
        (["acme/bert", "other/bert"], {"name": "a", "overwrite": True}, "two models .* a-bert"),
        (["acme/bert", "models/bert/"], {}, "two models"),
        (["acme/bert", "acme/bert"], {}, "twice"),
        (["acme/bert", "acme/other"], {"resume": True}, "needs the --name"),
        ([], {}, "give --model"),
    ],
)
def test_models_with_equal_run_names_are_refused(
    tmp_path: Path, calls: list[Any], record: Any, models: list[str], changes: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        run_models(config(tmp_path, *models, **changes), record)
    assert "\n" not in str(caught.value)
    assert calls == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (WeightsError("no weights"), "no weights"),
        (RuntimeError("CUDA out of memory\nTried to allocate much"), "CUDA out of memory"),
        (ValueError(""), "ValueError"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_failures_are_reported_in_one_line(
    tmp_path: Path, error: Exception, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> NoReturn:
        raise error

    with pytest.raises(FeatherweightError) as caught:
        run_models(config(tmp_path, "distilbert", "bert-base", name="a"), fail)
    message = str(caught.value)
    assert message.startswith("2 of 2 failed: distilbert (")
    assert message.count(reason) == 2
    assert "bert-base (" in message
    assert "\n" not in message
    assert caught.value.exit_code == 1
    assert "distilbert failed: " in caplog.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, AssertionError])
def test_interrupts_and_bugs_stop_all_models(
    tmp_path: Path, calls: list[Any], error: type[BaseException]
) -> None:
    def fail(_: Any, model: str) -> NoReturn:
        calls.append(model)
        raise error

    with pytest.raises(error):
        run_models(config(tmp_path, "distilbert", "bert-base", name="a"), fail)
    assert calls == ["distilbert"]


def test_failure_of_a_single_model_keeps_its_type(tmp_path: Path) -> None:
    def fail(*_: Any) -> NoReturn:
        raise WeightsError("no weights")

    with pytest.raises(WeightsError, match=r"^no weights$"):
        run_models(config(tmp_path, "distilbert"), fail)


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
