import json
import logging
import os
import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featherweight.data.checks import check
from featherweight.data.dataset import DataConfig, Dataset
from featherweight.errors import DataError, NothingToDo, UsageError, WeightsError
from featherweight.run import CHECKPOINT, CHECKPOINTS, MODEL, Run
from featherweight.training.config import OutputConfig, TrainingConfig, class_weights, log_epoch
from featherweight.training.run_records import (
    cut_off_run,
    first_records,
    logged_to,
    prepare_data,
    resolved,
    written_run,
)


@dataclass(frozen=True)
class Config(OutputConfig, TrainingConfig, DataConfig):
    """Options of a training."""

    kind = "lstm"


@dataclass(frozen=True)
class OtherConfig(OutputConfig, DataConfig):
    """Options of another verb."""

    kind = "features"

    pooling: str = "mean"


def interrupted(config: Any, name: str, *, age: int = 0) -> Run:
    """Creates an interrupted run that is `age` seconds old."""
    dataset, findings = prepare_data(config)
    records = first_records(config, dataset, findings)
    run = Run.create(config.output_dir, name, overwrite=False, records=records)
    run.file(CHECKPOINTS).mkdir()
    moment = run.file("config.json").stat().st_mtime - age
    os.utime(run.file("config.json"), (moment, moment))
    return run


@pytest.fixture
def config(tiny_data: Path, tmp_path: Path) -> Config:
    return Config(data=str(tiny_data), output_dir=tmp_path / "outputs")


@pytest.fixture
def dataset(config: Config) -> Dataset:
    return prepare_data(config)[0]


def test_data_is_checked_and_leaks_are_dropped_only_if_asked(
    tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(tiny_data, tmp_path / "data")
    leaked = (tmp_path / "data" / "test.csv").read_text(encoding="utf-8").splitlines()[1]
    with (tmp_path / "data" / "train.csv").open("a", encoding="utf-8") as file:
        file.write(f"{leaked}\n")
    kept, findings = prepare_data(DataConfig(data=str(tmp_path / "data")))
    assert len(kept.train) == 37
    assert findings.lines()
    assert findings.lines()[0] in caplog.text
    with caplog.at_level(logging.INFO, "featherweight"):
        dropped, _ = prepare_data(DataConfig(data=str(tmp_path / "data"), drop_leaks=True))
    assert len(dropped.train) == 36
    assert "1 texts were dropped" in caplog.text


def test_clean_data_logs_nothing(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    prepare_data(config)
    assert caplog.text == ""


def test_missing_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        prepare_data(DataConfig(data=str(tmp_path / "nowhere.csv")))


def test_first_records_are_json(config: Config) -> None:
    dataset, findings = prepare_data(config)
    records = first_records(config, dataset, findings)
    assert set(records) == {"config.json", "labels.json", "data.json", "environment.json"}
    copy = json.loads(json.dumps(records))
    assert copy["labels.json"] == ["anger", "joy", "sadness"]
    assert copy["config.json"].keys() == {"kind", *(field.name for field in fields(config))}
    assert copy["config.json"]["kind"] == "lstm"


def test_resolved_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    values = resolved(Config(data="mine", output_dir=Path("out")))
    assert values["data"] == str(tmp_path / "mine")
    assert values["output_dir"] == str(tmp_path / "out")
    # A Hub id is not a path.
    assert resolved(Config(data="owner/data"))["data"] == "owner/data"


def test_named_run_that_was_cut_off_is_found(config: Config, dataset: Dataset) -> None:
    run = interrupted(config, "mine")
    assert cut_off_run(replace(config, name="mine", resume=True), dataset).path == run.path  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["mine", ""])
def test_run_that_does_not_record_its_kind_is_found(
    config: Config, dataset: Dataset, name: str
) -> None:
    run = interrupted(config, "mine")
    saved = run.read_json("config.json")
    del saved["kind"]
    run.write_json("config.json", saved | {"preset": "feather"})
    found = cut_off_run(replace(config, name=name, resume=True), dataset)
    assert found is not None
    assert found.path == run.path


def test_named_run_that_never_began_is_none(config: Config, dataset: Dataset) -> None:
    assert cut_off_run(replace(config, name="mine", resume=True), dataset) is None


@pytest.mark.parametrize("weights", [MODEL, f"transformer/{MODEL}"])
def test_finished_run_is_not_resumed(config: Config, dataset: Dataset, weights: str) -> None:
    run = interrupted(config, "mine")
    run.file(weights).parent.mkdir(exist_ok=True)
    run.file(weights).touch()
    # There is still a checkpoint: the last step of the training is missing.
    assert cut_off_run(replace(config, name="mine"), dataset) is not None
    run.file(CHECKPOINTS).rmdir()
    run.file(CHECKPOINT).touch()
    assert cut_off_run(replace(config, name="mine"), dataset) is not None
    run.file(CHECKPOINT).unlink()
    with pytest.raises(NothingToDo, match="finished: nothing to resume"):
        cut_off_run(replace(config, name="mine"), dataset)
    with pytest.raises(UsageError, match=r"no run in .* was cut off"):
        cut_off_run(config, dataset)


def start(config: Config, dataset: Dataset) -> AbstractContextManager[Run]:
    """Returns the context of a training under the name "mine"."""
    findings = check(dataset)
    return written_run(config, dataset, "mine", lambda: first_records(config, dataset, findings))


def train_to_the_end(config: Config, dataset: Dataset) -> Run:
    with start(config, dataset) as run:
        run.write_text("seed", str(config.seed))
        run.file(MODEL).touch()
    return run


def test_the_old_run_stays_until_the_new_one_is_finished(config: Config, dataset: Dataset) -> None:
    old = train_to_the_end(config, dataset)
    again = replace(config, name="mine", overwrite=True, seed=1)
    with pytest.raises(KeyboardInterrupt) as caught, start(again, dataset) as run:
        run.file(CHECKPOINT).touch()
        raise KeyboardInterrupt
    assert str(caught.value) == (
        "to continue, give the same flags, --name mine and --resume instead of --overwrite; "
        f"{old.path} is still the old run"
    )
    assert old.file("seed").read_text() == "0"
    assert old.finished

    resumed = replace(again, overwrite=False, resume=True)
    with start(resumed, dataset) as run:
        assert run.file(CHECKPOINT).exists()
        run.file(CHECKPOINT).unlink()
        run.write_text("seed", "1")
        run.file(MODEL).touch()
    assert run.path == old.path
    assert old.file("seed").read_text() == "1"
    assert [path.name for path in config.output_dir.iterdir()] == ["mine"]


def test_a_run_killed_before_it_took_its_place_takes_it(config: Config, dataset: Dataset) -> None:
    old = train_to_the_end(config, dataset)
    again = replace(config, name="mine", overwrite=True, seed=1)
    with pytest.raises(KeyboardInterrupt), start(again, dataset) as run:
        run.write_text("seed", "1")
        run.file(MODEL).touch()
        raise KeyboardInterrupt
    with pytest.raises(NothingToDo), start(replace(again, overwrite=False, resume=True), dataset):
        pass
    assert old.file("seed").read_text() == "1"


def test_a_failure_before_the_first_checkpoint_leaves_nothing(
    config: Config, dataset: Dataset
) -> None:
    with pytest.raises(ValueError, match="any"), start(config, dataset):
        raise ValueError("any")
    assert list(config.output_dir.iterdir()) == []
    with pytest.raises(ValueError, match="any"), start(config, dataset) as run:
        run.file(CHECKPOINT).touch()
        raise ValueError("any")
    assert run.cut_off


@pytest.mark.parametrize("flags", [{"resume": True}, {"overwrite": True}, {}])
def test_a_second_writer_of_the_same_run_is_refused(
    config: Config, dataset: Dataset, flags: dict[str, bool]
) -> None:
    second = replace(config, name="mine", **flags)
    with start(config, dataset) as run:
        held = f"mine is being written by process {os.getpid()}"
        with pytest.raises(UsageError, match=held), start(second, dataset):
            pass
        assert run.file("config.json").is_file()


def test_without_a_name_the_newest_of_the_same_verb_is_found(
    config: Config, dataset: Dataset
) -> None:
    interrupted(config, "old", age=20)
    run = interrupted(config, "new", age=10)
    interrupted(OtherConfig(data=config.data, output_dir=config.output_dir), "other verb")
    found = cut_off_run(config, dataset)
    assert found is not None
    assert found.path == run.path


def test_nothing_to_resume_without_a_run(config: Config, dataset: Dataset) -> None:
    with pytest.raises(UsageError, match="nothing to resume"):
        cut_off_run(config, dataset)
    interrupted(OtherConfig(data=config.data, output_dir=config.output_dir), "other verb")
    with pytest.raises(UsageError, match="nothing to resume"):
        cut_off_run(config, dataset)


@pytest.mark.parametrize(
    "changes",
    [{"epochs": 7}, {"seed": 1}, {"batch_size": 5}, {"drop_leaks": True}, {"data": "bundled"}],
)
def test_other_flags_are_refused_and_named(
    config: Config, dataset: Dataset, changes: dict[str, Any]
) -> None:
    interrupted(config, "mine")
    (flag,) = changes
    for name in ("mine", ""):
        with pytest.raises(UsageError, match=f"--{flag} .* same flags") as caught:
            cut_off_run(replace(config, name=name, **changes), dataset)
        assert "\n" not in str(caught.value)


def test_output_flags_may_differ(config: Config, dataset: Dataset) -> None:
    run = interrupted(replace(config, name="mine"), "mine")
    for changes in ({"resume": True}, {"name": "", "resume": True}):
        found = cut_off_run(replace(config, **changes), dataset)  # type: ignore[arg-type]
        assert found is not None
        assert found.path == run.path


def test_other_data_is_refused(config: Config, tiny_data: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_data, tmp_path / "data")
    config = replace(config, data=str(tmp_path / "data"))
    interrupted(config, "mine")
    with (tmp_path / "data" / "validation.csv").open("a", encoding="utf-8") as file:
        file.write("one more,joy\n")
    with pytest.raises(UsageError, match="has changed"):
        cut_off_run(replace(config, name="mine"), prepare_data(config)[0])


def test_damaged_run_is_refused(config: Config, dataset: Dataset) -> None:
    run = interrupted(config, "mine")
    run.file("data.json").unlink()
    with pytest.raises(WeightsError, match=r"data\.json"):
        cut_off_run(replace(config, name="mine"), dataset)
    run.file("config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"config\.json"):
        cut_off_run(replace(config, name="mine"), dataset)


def test_log_is_appended(tmp_path: Path) -> None:
    logger = logging.getLogger("featherweight")
    handlers = list(logger.handlers)
    with logged_to(tmp_path / "training.log"):
        logger.info("one 😀")
    logger.info("between")
    with pytest.raises(KeyboardInterrupt), logged_to(tmp_path / "training.log"):
        logger.warning("two")
        raise KeyboardInterrupt
    lines = (tmp_path / "training.log").read_text(encoding="utf-8").splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["INFO one 😀", "WARNING two"]
    assert logger.handlers == handlers


@pytest.mark.parametrize(
    ("texts", "batch_size", "min_steps", "passes"),
    [(36, 8, 1, 1), (36, 8, 5, 1), (36, 8, 6, 2), (36, 8, 11, 3), (1, 32, 400, 400), (8, 8, 1, 1)],
)
def test_small_splits_are_repeated(
    texts: int, batch_size: int, min_steps: int, passes: int
) -> None:
    config = TrainingConfig(min_steps=min_steps)
    assert config.passes_per_epoch(texts, batch_size) == passes
    # The argument counts, which may be larger than the flag (several processes, accumulation).
    assert replace(config, batch_size=1).passes_per_epoch(texts, batch_size) == passes


def test_class_weights_balance_the_classes() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    balanced = class_weights(labels, 3, TrainingConfig(class_weights="balanced"))
    # A class without texts counts as one with a single text.
    assert balanced == pytest.approx([6 / 12, 6 / 6, 6 / 3])
    assert balanced.dtype == np.float32
    assert class_weights(labels, 3, TrainingConfig()).tolist() == [1.0, 1.0, 1.0]


def test_epoch_is_logged_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    record = {
        "epoch": 2, "train_loss": 0.5, "validation_loss": 0.25, "validation_accuracy": 0.75,
        "validation_macro_f1": 0.7, "seconds": 1.26,
    }  # fmt: skip
    with caplog.at_level(logging.INFO, "featherweight"):
        log_epoch(record, 6)
    (line,) = caplog.messages
    assert line.startswith("epoch 2/6  loss 0.5000  validation loss 0.2500")
    assert "macro-F1 0.7000  (1.3 s)" in line


@pytest.mark.parametrize("name", ["a/b", "..", "/a", "a/"])
def test_name_must_not_be_a_path(name: str) -> None:
    with pytest.raises(UsageError, match="--name"):
        OutputConfig(name=name)
