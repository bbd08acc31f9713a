"""`train --vectors` as users run it: the run, its portable file and its bundle."""

import json
from pathlib import Path

import numpy as np
import pytest

from featherweight import load
from featherweight.cli import main
from featherweight.run import MODEL
from featherweight.weights import read_metadata
from lstm import fit
from lstm.config import ModelConfig
from tests.helpers.command_line import TINY, call, error_line
from tests.helpers.seeding import untouched_generators

TEXTS = ["i'm so happy today", "this is dreadful!", "zzyzx", ""]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the bundled corpus, trained from the vectors of the package."""
    folder = tmp_path_factory.mktemp("runs")
    with untouched_generators():
        assert call("train", *TINY, "--data", "bundled", "--vectors", "builtin",
                    "--output_dir", folder, "--name", "vectors") == 0  # fmt: skip
    return folder / "vectors"


def test_run_says_where_its_vectors_came_from(run: Path) -> None:
    assert json.loads((run / "config.json").read_text())["vectors"] == "builtin"
    assert "word vectors (builtin): " in (run / "training.log").read_text(encoding="utf-8")


def test_portable_file_is_that_of_any_lstm(run: Path) -> None:
    config = json.loads(read_metadata(run / MODEL)["config"])
    assert config.keys() == ModelConfig.__dataclass_fields__.keys()
    evaluation = json.loads((run / "evaluation.json").read_text())
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert evaluation["macro_f1"] == max(record["validation_macro_f1"] for record in history)


def test_bundle_predicts_what_the_run_predicts(run: Path, tmp_path: Path) -> None:
    assert main(["export", "--weights", str(run), "--output_path", str(tmp_path / "bundle")]) == 0
    assert main(["verify", str(tmp_path / "bundle")]) == 0
    trained, bundle = load(run, "cpu"), load(tmp_path / "bundle")
    assert bundle.predict(TEXTS) == trained.predict(TEXTS)
    # The bundle is in int8, and divides the logits by a temperature.
    logits = np.stack([bundle.logits(TEXTS).flatten(), trained.logits(TEXTS).flatten()])
    assert np.corrcoef(logits)[0, 1] > 0.999


def test_unknown_vectors_leave_one_line_and_no_run(
    tmp_path: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = call("train", *TINY, "--data", tiny_data, "--vectors", "built in",
                "--output_dir", tmp_path / "runs")  # fmt: skip
    assert code == 2
    assert "--vectors 'built in'" in error_line(capsys)
    assert not list((tmp_path / "runs").iterdir())


@pytest.mark.parametrize("tokenizer", ["word", "bpe"])
def test_two_trainings_from_vectors_give_the_same_bytes(
    tiny_data: Path, tmp_path: Path, tokenizer: str
) -> None:
    files = []
    for folder in ("one", "other"):
        flags = ["--data", tiny_data, "--vectors", "builtin", "--tokenizer", tokenizer]
        assert call("train", *TINY, *flags, "--output_dir", tmp_path / folder, "--name", "run") == 0
        files.append((tmp_path / folder / "run" / MODEL).read_bytes())
    assert files[0] == files[1]
    assert call("train", *TINY, "--data", tiny_data, "--tokenizer", tokenizer,
                "--output_dir", tmp_path, "--name", "run") == 0  # fmt: skip
    assert (tmp_path / "run" / MODEL).read_bytes() != files[0]


def test_resumed_training_gives_the_bytes_of_an_uninterrupted_one(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = [*TINY, "--epochs", "2", "--data", tiny_data, "--vectors", "builtin", "--name", "run"]
    assert call("train", *flags, "--output_dir", tmp_path / "whole") == 0
    save = fit.save_checkpoint

    def save_and_stop(*arguments: object) -> None:
        save(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fit, "save_checkpoint", save_and_stop)
        assert call("train", *flags, "--output_dir", tmp_path / "cut") == 130
    assert call("train", *flags, "--output_dir", tmp_path / "cut", "--resume") == 0
    assert (tmp_path / "cut/run" / MODEL).read_bytes() == (
        tmp_path / "whole/run" / MODEL
    ).read_bytes()
