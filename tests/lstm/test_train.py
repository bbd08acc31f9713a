import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import safetensors.torch
import torch
from torch import Tensor

from featherweight import load
from featherweight.cli import main
from featherweight.errors import (
    DataError,
    FeatherweightError,
    NothingToDo,
    UsageError,
    WeightsError,
)
from featherweight.reports import reporting
from featherweight.run import CHECKPOINT, MODEL, newest_run
from lstm import fit, train
from lstm.classifier import TextClassifier
from lstm.config import TrainConfig, preset
from tests.helpers.seeding import untouched_generators

ROOT = Path(__file__).parents[2]
SMALL: dict[str, Any] = {
    "embedding_dim": 8,
    "hidden_dim": 8,
    "epochs": 2,
    "min_steps": 1,
    "batch_size": 8,
    "learning_rate": 0.03,
    "device": "cpu",
    "name": "small",
}


def small(data: Path, output_dir: Path, **changes: Any) -> TrainConfig:
    return TrainConfig(**{**SMALL, "data": str(data), "output_dir": output_dir, **changes})


def tensors(run: Path) -> dict[str, Tensor]:
    return safetensors.torch.load((run / MODEL).read_bytes())


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def write_texts(path: Path, texts: list[str]) -> None:
    """Writes texts of two classes in turns."""
    with path.open("w", encoding="utf-8", newline="") as file:
        labels = ("a" if row % 2 else "b" for row in range(len(texts)))
        csv.writer(file).writerows([("text", "label"), *zip(texts, labels, strict=True)])


def contents(folder: Path) -> dict[str, bytes]:
    """Returns the content of every file in a folder, including hidden files."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def interrupt(*_: Any) -> NoReturn:
    raise KeyboardInterrupt


@pytest.fixture(scope="module", params=["word", "bpe"])
def whole_run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_data: Path,
    tiny_run: Path,
) -> Path:  # fmt: skip
    """An uninterrupted training with each kind of tokenizer."""
    if request.param == "word":
        return tiny_run
    config = small(tiny_data, tmp_path_factory.mktemp("whole"), tokenizer="bpe")
    with untouched_generators():
        return train.train(config)[0].path


def stop_after_first_epoch(config: TrainConfig) -> Path:
    """Starts a training, and returns the unfinished run."""
    save = fit.save_checkpoint

    def save_and_stop(*arguments: Any) -> None:
        save(*arguments)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, untouched_generators():
        patch.setattr(fit, "save_checkpoint", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train.train(config)
    return config.output_dir / config.name


@pytest.fixture(scope="module")
def unfinished_run(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    """A training that was interrupted after its first epoch; do not change it."""
    return stop_after_first_epoch(small(tiny_data, tmp_path_factory.mktemp("unfinished")))


@pytest.fixture
def unfinished(unfinished_run: Path, tmp_path: Path) -> Path:
    """A copy of the interrupted training."""
    return shutil.copytree(unfinished_run, tmp_path / "small")


def test_files_of_a_finished_run(tiny_run: Path) -> None:
    assert {path.name for path in tiny_run.iterdir()} == {
        "README.md",
        "config.json",
        "confusion_matrix.png",
        "data.json",
        "environment.json",
        "evaluation.json",
        "history.jsonl",
        "labels.json",
        "model.safetensors",
        "predictions.csv",
        "tokenizer.json",
        "training.log",
        "training_curves.png",
    }
    assert [path.name for path in tiny_run.parent.iterdir()] == ["tiny"]


def test_files_of_a_run_record_the_training(tiny_run: Path, tiny_data: Path) -> None:
    config = json.loads((tiny_run / "config.json").read_text())
    assert (config["hidden_dim"], config["preset"], config["seed"]) == (8, "feather", 0)
    assert Path(config["data"]) == tiny_data.resolve()
    assert config.keys() == TrainConfig.__dataclass_fields__.keys()
    assert json.loads((tiny_run / "labels.json").read_text()) == ["anger", "joy", "sadness"]
    data = json.loads((tiny_run / "data.json").read_text())
    assert {name: split["n"] for name, split in data["splits"].items()} == {
        "train": 36,
        "validation": 12,
        "test": 12,
    }
    assert all(len(split["sha256"]) == 64 for split in data["splits"].values())
    assert json.loads((tiny_run / "environment.json").read_text())["libraries"]["torch"]
    history = [json.loads(line) for line in (tiny_run / "history.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in history] == [1, 2]
    evaluation = json.loads((tiny_run / "evaluation.json").read_text())
    assert (evaluation["split"], evaluation["n"]) == ("validation", 12)
    assert evaluation["macro_f1"] == max(record["validation_macro_f1"] for record in history)
    with (tiny_run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 12
    for picture in ("training_curves.png", "confusion_matrix.png"):
        assert (tiny_run / picture).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_vocabulary_comes_from_the_training_split_alone(tiny_run: Path, tiny_data: Path) -> None:
    vocabulary = json.loads((tiny_run / "tokenizer.json").read_text())["model"]["vocab"]
    train = (tiny_data / "train.csv").read_text(encoding="utf-8").lower()
    train = train.replace("'", "")
    assert len(vocabulary) > 20
    # Elongated words are shortened.
    assert {word for word in vocabulary if word not in train} <= {"<pad>", "<unk>", "soo"}


@pytest.mark.parametrize(
    ("options", "ways"),
    [
        ({}, "--tokenizer bpe, --min_frequency 1, "),
        ({"min_frequency": 1}, "--tokenizer bpe, "),
        ({"tokenizer": "bpe"}, "--min_frequency 1, "),
    ],
)
def test_many_unknown_validation_tokens_are_warned_of_with_a_way_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, options: dict[str, Any], ways: str
) -> None:
    write_texts(tmp_path / "train.csv", ["so glad", "so sad"] * 4)
    write_texts(tmp_path / "validation.csv", ["так рад", "так грустно"])
    run, _ = train.train(small(tmp_path, tmp_path / "runs", **options))
    (message,) = [record.message for record in caplog.records if record.levelname == "WARNING"][-1:]
    assert f"unknown to the model: try {ways}more training texts" in message
    assert message in run.file("training.log").read_text(encoding="utf-8")


def test_known_validation_tokens_are_not_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_texts(tmp_path / "train.csv", ["so glad", "so sad"] * 4)
    write_texts(tmp_path / "validation.csv", ["so very glad", "so sad so sad"])
    train.train(small(tmp_path, tmp_path / "runs"))
    assert "unknown to the model" not in caplog.text


def test_run_and_model_have_the_same_tokenizer(tiny_run: Path) -> None:
    classifier = load(tiny_run, "cpu")
    assert isinstance(classifier, TextClassifier)
    assert json.loads(classifier.tokenizer.to_str()) == json.loads(
        (tiny_run / "tokenizer.json").read_text(encoding="utf-8")
    )


def test_two_trainings_give_the_same_bytes(
    whole_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    saved = json.loads((whole_run / "config.json").read_text())
    run, _ = train.train(
        small(tiny_data, tmp_path, name=saved["name"], tokenizer=saved["tokenizer"])
    )
    assert (run.path / MODEL).read_bytes() == (whole_run / MODEL).read_bytes()


def test_default_name_of_a_run(tiny_data: Path, tmp_path: Path) -> None:
    run, _ = train.train(small(tiny_data, tmp_path, name="", epochs=1))
    kind, data, *moment = run.path.name.split("-")
    assert (kind, data) == ("feather", "moods")
    time.strptime("-".join(moment), "%Y%m%d-%H%M%S")


def test_existing_run_is_refused_and_unchanged(
    tiny_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_run, tmp_path / "small")
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="--overwrite"):
        train.train(small(tiny_data, tmp_path))
    assert contents(tmp_path) == before


def test_overwrite_replaces_the_whole_run(tiny_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run, tmp_path / "small")
    (tmp_path / "small" / "latency.json").write_text("{}")
    run, _ = train.train(small(tiny_data, tmp_path, overwrite=True, seed=1))
    assert json.loads((run.path / "config.json").read_text())["seed"] == 1
    assert not (run.path / "latency.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["small"]
    assert not equal(tensors(run.path), tensors(tiny_run))


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({"thesis.txt": "years of work"}, id="no config.json"),
        pytest.param(
            {"config.json": '{"model_type": "bert"}', "pytorch_model.bin": "weights"},
            id="another program's config.json",
        ),
        pytest.param({}, id="an empty folder"),
    ],
)
def test_directory_that_is_not_a_run_is_never_overwritten(
    tiny_data: Path, tmp_path: Path, files: dict[str, str]
) -> None:
    (tmp_path / "small").mkdir()
    for name, content in files.items():
        (tmp_path / "small" / name).write_text(content)
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="not a run"):
        train.train(small(tiny_data, tmp_path, overwrite=True))
    assert contents(tmp_path) == before
    assert (tmp_path / "small").is_dir()


@pytest.mark.parametrize(
    ("train_csv", "changes", "error"),
    [
        pytest.param("", {}, DataError, id="empty file"),
        pytest.param("text,label\na,joy\nb,joy\n", {}, DataError, id="one class"),
        pytest.param("words,label\na,joy\nb,sad\n", {}, DataError, id="no text column"),
        pytest.param("text,label\na,joy\nb\n", {}, DataError, id="a field too few"),
        pytest.param("text,label\na,joy\nb,sad\n", {}, DataError, id="no word twice"),
        pytest.param(
            "text,label\na a,joy\nb b,sad\n", {"precision": "fp16"}, UsageError, id="fp16 on CPU"
        ),
    ],
)
def test_unusable_data_leaves_no_run(
    tmp_path: Path, train_csv: str, changes: dict[str, Any], error: type[FeatherweightError]
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "train.csv").write_text(train_csv)
    (data / "validation.csv").write_text("text,label\nc,joy\n")
    with pytest.raises(error) as caught:
        train.train(small(data, tmp_path / "outputs", **changes))
    assert "\n" not in str(caught.value)
    outputs = tmp_path / "outputs"
    assert not outputs.exists() or not list(outputs.iterdir())


def test_unusable_data_does_not_delete_the_run_to_overwrite(tiny_run: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run, tmp_path / "small")
    data = tmp_path / "data.csv"
    data.write_text("text,label\n" + "".join(f"t{i},{'ab'[i % 2]}\n" for i in range(60)))
    before = contents(tmp_path)
    with pytest.raises(DataError, match="min_frequency"):
        train.train(small(data, tmp_path, overwrite=True))
    assert contents(tmp_path) == before


def test_resumed_run_equals_uninterrupted_run(
    whole_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    kind = json.loads((whole_run / "config.json").read_text())["tokenizer"]
    config = small(tiny_data, tmp_path, tokenizer=kind)
    unfinished = stop_after_first_epoch(config)
    # Without a name, the interrupted run is found.
    name = {"word": "small", "bpe": ""}[kind]
    run, evaluation = train.train(replace(config, name=name, resume=True))
    assert run.path == unfinished
    assert equal(tensors(run.path), tensors(whole_run))
    assert {path.name for path in run.path.iterdir()} == {path.name for path in whole_run.iterdir()}
    assert len((run.path / "history.jsonl").read_text().splitlines()) == 2
    assert load(run.path, "cpu").name == evaluation.model == "small"


def test_run_from_before_a_flag_existed_is_resumed(
    unfinished: Path, tiny_data: Path, tiny_run: Path
) -> None:
    config = json.loads((unfinished / "config.json").read_text())
    del config["vectors"]
    (unfinished / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="--vectors 'none', not 'builtin'"):
        train.train(small(tiny_data, unfinished.parent, resume=True, vectors="builtin"))
    run, _ = train.train(small(tiny_data, unfinished.parent, resume=True))
    assert equal(tensors(run.path), tensors(tiny_run))


def test_unfinished_run_is_not_loaded(unfinished_run: Path) -> None:
    with pytest.raises(WeightsError, match="--resume"):
        load(unfinished_run, "cpu")


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    """A training that was interrupted after its last epoch."""
    config = small(tiny_data, tmp_path_factory.mktemp("trained"))
    with pytest.MonkeyPatch.context() as patch, untouched_generators():
        patch.setattr(train, "evaluate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train.train(config)
    return config.output_dir / config.name


@pytest.mark.parametrize("step", ["evaluate", "write_evaluation"])
def test_run_interrupted_after_its_last_epoch_is_resumed(
    tiny_run: Path, trained_run: Path, tiny_data: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, step: str,
) -> None:  # fmt: skip
    shutil.copytree(trained_run, tmp_path / "small")
    config = small(tiny_data, tmp_path, resume=True)
    with monkeypatch.context() as context:
        context.setattr(train, step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            train.train(config)
    run, _ = train.train(config)
    assert run.finished
    assert equal(tensors(run.path), tensors(tiny_run))
    assert {path.name for path in run.path.iterdir()} == {path.name for path in tiny_run.iterdir()}


@pytest.mark.parametrize("picture", ["training_curves", "confusion_matrix"])
def test_picture_that_cannot_be_drawn_leaves_a_finished_run(
    tiny_run: Path, tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch, picture: str,
) -> None:  # fmt: skip
    def fail(*_: Any) -> NoReturn:
        raise MemoryError("Unable to allocate 2.1 GiB")

    monkeypatch.setattr(reporting, picture, fail)
    run, _ = train.train(small(tiny_data, tmp_path))
    assert run.finished
    assert equal(tensors(run.path), tensors(tiny_run))
    files = {path.name for path in tiny_run.iterdir()} - {f"{picture}.png"}
    assert {path.name for path in run.path.iterdir()} == files
    assert any(f"{picture}.png was not drawn (MemoryError: Unable" in m for m in caplog.messages)


def test_ctrl_c_while_drawing_leaves_a_finished_run(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "confusion_matrix", interrupt)
    with pytest.raises(KeyboardInterrupt, match="is finished"):
        train.train(small(tiny_data, tmp_path))
    assert load(tmp_path / "small", "cpu").labels == ("anger", "joy", "sadness")


def test_resume_without_a_run_trains_it(tiny_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    run, _ = train.train(small(tiny_data, tmp_path, resume=True))
    assert equal(tensors(run.path), tensors(tiny_run))


def test_finished_run_is_not_resumed(tiny_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run, tmp_path / "small")
    with pytest.raises(NothingToDo, match="finished"):
        train.train(small(tiny_data, tmp_path, resume=True))
    with pytest.raises(UsageError, match="nothing to resume"):
        train.train(small(tiny_data, tmp_path, name="", resume=True))


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_dim": 9},
        {"epochs": 3},
        {"seed": 1},
        {"learning_rate": 0.001},
        {"tokenizer": "bpe"},
        {"pooling": "mean"},
        {"class_weights": "balanced"},
        {"preset": "classic"},
    ],
)
def test_resume_with_other_flags_is_refused(
    tiny_data: Path, tmp_path: Path, unfinished: Path, changes: dict[str, Any]
) -> None:
    before = contents(tmp_path)
    (flag,) = changes
    with pytest.raises(UsageError, match=f"--{flag} ") as caught:
        train.train(small(tiny_data, tmp_path, resume=True, **changes))
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_resume_with_changed_data_is_refused(
    tiny_data: Path, tmp_path: Path, unfinished: Path, split: str
) -> None:
    data = shutil.copytree(tiny_data, tmp_path / "data")
    saved = json.loads((unfinished / "config.json").read_text())
    (unfinished / "config.json").write_text(json.dumps(saved | {"data": str(data)}))
    with (data / f"{split}.csv").open("a", encoding="utf-8") as file:
        file.write("one more,joy\n")
    with pytest.raises(UsageError, match="has changed"):
        train.train(small(data, tmp_path, resume=True))


def test_resume_from_a_damaged_tokenizer_is_refused(
    tiny_data: Path, tmp_path: Path, unfinished: Path
) -> None:
    (unfinished / "tokenizer.json").write_text("{")
    with pytest.raises(WeightsError, match=r"tokenizer\.json"):
        train.train(small(tiny_data, tmp_path, resume=True))


KILLED = """
import os, runpy, signal, sys
from lstm import fit
learning_rate_at = fit.learning_rate_at

def kill_at_step_7(step, *arguments):
    if step == 7:  # an epoch has 5 steps
        os.kill(os.getpid(), signal.SIGKILL)
    return learning_rate_at(step, *arguments)

fit.learning_rate_at = kill_at_step_7
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


KILLED_WHILE_DRAWING = """
import os, signal, sys
from featherweight.cli import main
from featherweight.reports import reporting

reporting.training_curves = lambda _: os.kill(os.getpid(), signal.SIGKILL)
main(sys.argv[1:])
"""


def test_kill_while_drawing_leaves_a_finished_run(
    tiny_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    flags = [f"--{name}={value}" for name, value in SMALL.items()]
    killed = subprocess.run(
        [
            sys.executable, "-c", KILLED_WHILE_DRAWING, "train", *flags, f"--data={tiny_data}",
            f"--output_dir={tmp_path}",
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    run = newest_run(tmp_path)
    assert equal(tensors(run.path), tensors(tiny_run))
    assert run.read_json("evaluation.json")["n"] == 12
    assert {path.name for path in run.path.iterdir()} == {
        path.name for path in tiny_run.iterdir() if path.suffix != ".png"
    }


def test_killed_and_resumed_run_equals_uninterrupted_run(
    tiny_run: Path, tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flags = [f"--{name}={value}" for name, value in SMALL.items()]
    flags += [f"--data={tiny_data}", f"--output_dir={tmp_path}"]
    run = tmp_path / "small"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(ROOT / "train.py"), *flags],
        cwd=ROOT,
        # One thread, as in this process, so that sums have the same order.
        env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL
    # Without a terminal, the log has no control characters of a progress bar.
    assert "epoch 1/2" in killed.stderr
    assert not set(killed.stdout + killed.stderr) & {"\r", "\x1b", "\b"}
    assert (run / CHECKPOINT).exists()
    assert not (run / MODEL).exists()

    assert main(["train", *flags, "--resume"]) == 0
    assert "resuming after epoch 1" in caplog.messages
    assert equal(tensors(run), tensors(tiny_run))
    assert len((run / "history.jsonl").read_text().splitlines()) == 2


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns a function that parses flags of `featherweight train`."""

    def parse(*flags: str) -> TrainConfig:
        seen: list[TrainConfig] = []

        def stop(config: TrainConfig) -> NoReturn:
            seen.append(config)
            raise UsageError("enough")

        monkeypatch.setattr(train, "train", stop)
        assert main(["train", *flags]) == 2
        return seen[0]

    return parse


@pytest.mark.parametrize("name", ["feather", "classic"])
def test_preset_sets_the_defaults(parsed: Any, name: Any) -> None:
    assert parsed("--preset", name) == preset(name)


def test_without_a_preset_the_defaults_are_those_of_feather(parsed: Any) -> None:
    assert parsed() == preset("feather")


@pytest.mark.parametrize(
    "flags",
    [
        ("--preset", "classic", "--hidden_dim", "7", "--pooling", "max"),
        ("--hidden_dim", "7", "--pooling", "max", "--preset", "classic"),
        ("--hidden_dim=7", "--preset=classic", "--pooling=max"),
    ],
)
def test_flags_override_the_preset_in_any_order(parsed: Any, flags: tuple[str, ...]) -> None:
    assert parsed(*flags) == preset("classic", hidden_dim=7, pooling="max")


def test_flag_wins_over_the_preset_even_with_the_default_of_the_other_preset(parsed: Any) -> None:
    assert parsed("--preset", "classic", "--hidden_dim", "32").hidden_dim == 32


def test_config_file_overrides_the_preset_and_flags_override_both(
    parsed: Any, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("preset: classic\nhidden_dim: 7\nepochs: 3\nbidirectional: true\n")
    config = parsed("--config", str(file), "--epochs", "4")
    assert config == preset("classic", hidden_dim=7, epochs=4, bidirectional=True)


def test_printed_config_gives_the_same_training_again(
    parsed: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["train", "--preset", "classic", "--seed", "3", "--print_config"])
    assert caught.value.code == 0
    file = tmp_path / "printed.yaml"
    file.write_text(capsys.readouterr().out)
    assert parsed("--config", str(file)) == preset("classic", seed=3)


@pytest.mark.parametrize(
    "flags",
    [
        ("--hidden_dim", "many"),
        ("--hidden_dim", "0"),
        ("--pooling", "sum"),
        ("--preset", "heavy"),
        ("--no_such_flag", "1"),
        ("--overwrite", "--resume"),
        ("--config", "no-such-file.yaml"),
    ],
)
def test_wrong_flag_ends_with_2_and_without_a_traceback(
    flags: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = main(["train", "--output_dir", str(tmp_path / "outputs"), *flags])
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "outputs").exists()


def test_train_prints_the_tables_and_the_path_of_the_run(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"--{name}={value}" for name, value in SMALL.items()]
    assert main(["train", f"--data={tiny_data}", f"--output_dir={tmp_path}", *given]) == 0
    printed = capsys.readouterr()
    assert "macro average" in printed.out
    assert str(tmp_path / "small") in printed.out
    assert "epoch 2/2" in printed.err
    assert "epoch 2/2" not in printed.out
    assert "epoch 2/2" in (tmp_path / "small" / "training.log").read_text()
