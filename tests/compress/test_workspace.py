import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from compress.distillation.teachers import CACHE
from compress.workspace import RESUME
from featherweight import load
from featherweight.cli import main
from featherweight.disk.lock import locked
from featherweight.errors import FeatherweightError, UsageError, WeightsError
from featherweight.run import CHECKPOINT, MODEL, Run, newest_run
from lstm import fit
from lstm.classifier import TextClassifier
from tests.helpers.variants import compressed, contents
from transformer_eval.safe_trainer import History

pytestmark = pytest.mark.usefixtures("undrawn")


def fingerprint(path: Path) -> str:
    """The hash of tensors and metadata; the order of the header may differ."""
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return str(header["__metadata__"]["sha256"])


TRAINED = ["qat", "prune+int8", "distill"]


@pytest.fixture
def epochs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Counts the epochs; after a first entry "interrupt", the second epoch is interrupted."""
    counted: list[str] = []
    train_epoch = fit._train_epoch

    def watched(*args: Any) -> float:
        if counted == ["interrupt", "epoch"]:
            raise KeyboardInterrupt
        counted.append("epoch")
        return train_epoch(*args)

    monkeypatch.setattr(fit, "_train_epoch", watched)
    return counted


def interrupt(run: Run, epochs: list[str], method: str, **flags: Any) -> None:
    """Interrupts a compression in its second epoch."""
    epochs[:] = ["interrupt"]
    with pytest.raises(KeyboardInterrupt):
        compressed(run.path, method, **flags)
    epochs.clear()


def test_a_variant_is_made_by_one_process_at_a_time(run: Run) -> None:
    held = f"compressed/qat is being written by process {os.getpid()}"
    with locked(run.file("compressed") / "qat"), pytest.raises(UsageError, match=held):
        compressed(run.path, "qat")


@pytest.mark.parametrize("method", TRAINED)
def test_a_resumed_compression_equals_an_uninterrupted_one(
    run: Run, tmp_path: Path, epochs: list[str], method: str
) -> None:
    other = Run(Path(shutil.copytree(run.path, tmp_path / "other" / "tiny")))
    whole = compressed(other.path, method)
    needed = len(epochs)
    interrupt(run, epochs, method)
    assert not (run.path / "compressed" / method).exists()
    assert (run.path / "compressed" / f".{method}" / CHECKPOINT).is_file()
    variant = compressed(run.path, method)
    assert len(epochs) == needed - 1
    assert fingerprint(variant.file(MODEL)) == fingerprint(whole.file(MODEL))
    assert variant.read_json("evaluation.json") == whole.read_json("evaluation.json")
    folders = {path.name for path in (run.path / "compressed").iterdir() if path.is_dir()}
    assert folders - {CACHE} == {method}


@pytest.mark.parametrize("flags", [{"seed": 5}, {"sparsity": 0.6}])
def test_other_flags_start_over(
    run: Run, tmp_path: Path, epochs: list[str], flags: dict[str, Any]
) -> None:
    other = Run(Path(shutil.copytree(run.path, tmp_path / "other" / "tiny")))
    whole = compressed(other.path, "prune", **flags)
    interrupt(run, epochs, "prune")
    variant = compressed(run.path, "prune", **flags)
    assert len(epochs) == 3
    assert fingerprint(variant.file(MODEL)) == fingerprint(whole.file(MODEL))


def test_the_replacement_of_a_variant_can_be_resumed(run: Run, epochs: list[str]) -> None:
    older = fingerprint(compressed(run.path, "prune", retraining_epochs=1).file(MODEL))
    interrupt(run, epochs, "prune", overwrite=True)
    assert fingerprint(run.path / "compressed" / "prune" / MODEL) == older
    newer = compressed(run.path, "prune", overwrite=True)
    assert len(epochs) == 2
    assert fingerprint(newer.file(MODEL)) != older


def test_interrupted_methods_do_not_affect_others(run: Run, epochs: list[str]) -> None:
    interrupt(run, epochs, "qat")
    compressed(run.path, "prune")
    assert len(epochs) == 3
    compressed(run.path, "qat")
    assert len(epochs) == 5
    assert newest_run(run.path.parent).path == run.path


@pytest.mark.parametrize(
    ("method", "flags"),
    [
        ("distill", {"teachers": [Path("nowhere")]}),
        ("distill", {"unlabelled": Path("nowhere.csv")}),
    ],
)
def test_a_refused_method_leaves_no_workspace(run: Run, method: str, flags: dict[str, Any]) -> None:
    before = contents(run.path)
    with pytest.raises(FeatherweightError, match="nowhere"):
        compressed(run.path, method, **flags)
    assert contents(run.path) == before


def test_a_full_disk_after_the_training_does_not_lose_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, epochs: list[str]
) -> None:
    replace = Path.replace

    def full(path: Path, target: Path) -> Path:
        if target.name == "predictions.csv":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(path, target)

    with monkeypatch.context() as patched, pytest.raises(OSError):
        patched.setattr(Path, "replace", full)
        compressed(run.path, "qat")
    assert len(epochs) == 3
    compressed(run.path, "qat")
    assert len(epochs) == 3


def test_an_origin_trained_again_starts_over(run: Run, tmp_path: Path, epochs: list[str]) -> None:
    interrupt(run, epochs, "qat")
    classifier = load(run.path, "cpu")
    assert isinstance(classifier, TextClassifier)
    with torch.no_grad():
        next(classifier.module.parameters()).mul_(0.5)
    classifier.save(run.file(MODEL))
    other = Run(Path(shutil.copytree(run.path, tmp_path / "other" / "tiny")))
    shutil.rmtree(other.file("compressed"))
    whole = compressed(other.path, "qat")
    epochs.clear()
    variant = compressed(run.path, "qat")
    assert len(epochs) == 3
    assert fingerprint(variant.file(MODEL)) == fingerprint(whole.file(MODEL))


# Damaged state


@pytest.mark.parametrize("state", [b"no tensors", None], ids=["foreign", "truncated"])
def test_a_damaged_training_is_removed_and_the_same_command_starts_over(
    run: Run, epochs: list[str], state: bytes | None
) -> None:
    interrupt(run, epochs, "qat")
    workspace = run.path / "compressed" / ".qat"
    content = (workspace / CHECKPOINT).read_bytes()
    half = content[: len(content) // 2]
    (workspace / CHECKPOINT).write_bytes(half if state is None else state)
    with pytest.raises(WeightsError, match="run the same command again") as caught:
        compressed(run.path, "qat")
    assert str(workspace) in str(caught.value)
    assert "--overwrite" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not workspace.exists()
    compressed(run.path, "qat")
    assert len(epochs) == 3


def test_a_damaged_training_of_a_transformer_is_removed(
    bert_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_epoch_begin, epochs = History.on_epoch_begin, []

    def interrupt_the_second(*args: Any, **kwargs: Any) -> None:
        epochs.append("epoch")
        if len(epochs) == 2:
            raise KeyboardInterrupt
        on_epoch_begin(*args, **kwargs)

    monkeypatch.setattr(History, "on_epoch_begin", interrupt_the_second)
    with pytest.raises(KeyboardInterrupt, match=f"^{RESUME}$"):
        compressed(bert_run.path, "prune", retraining_epochs=2)
    workspace = bert_run.path / "compressed" / ".prune"
    (state,) = workspace.glob("checkpoints/*/state.safetensors")
    state.write_bytes(b"no tensors")
    with pytest.raises(WeightsError, match="run the same command again"):
        compressed(bert_run.path, "prune", retraining_epochs=2)
    assert not workspace.exists()
    compressed(bert_run.path, "prune", retraining_epochs=2)
    assert len(epochs) == 4


def test_a_damaged_teacher_does_not_remove_the_training(
    run: Run, tmp_path: Path, epochs: list[str]
) -> None:
    teacher = Path(shutil.copytree(run.path, tmp_path / "teacher"))
    interrupt(run, epochs, "distill", teachers=[teacher])
    (teacher / MODEL).write_bytes(b"no tensors")
    with pytest.raises(WeightsError) as caught:
        compressed(run.path, "distill", teachers=[teacher])
    assert str(teacher) in str(caught.value)
    assert (run.path / "compressed" / ".distill" / CHECKPOINT).is_file()


def test_an_unreadable_workspace_record_starts_over(run: Run, epochs: list[str]) -> None:
    interrupt(run, epochs, "qat")
    (run.path / "compressed" / ".qat" / "config.json").write_text("{")
    compressed(run.path, "qat")
    assert len(epochs) == 3


# Ctrl-C


def test_ctrl_c_says_how_to_resume_an_epoch_later(
    run: Run, epochs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compress", "--weights", str(run.path), "--method", "qat", "--device", "cpu"]
    epochs[:] = ["interrupt"]
    assert main(arguments) == 130
    message = capsys.readouterr().err.splitlines()[-1]
    assert message == f"featherweight: interrupted: {RESUME}"
    epochs.clear()
    assert main(arguments) == 0
    assert len(epochs) == 2


def test_ctrl_c_in_the_first_epoch_leaves_nothing_to_resume(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "_train_epoch", interrupt)
    arguments = ["compress", "--weights", str(run.path), "--method", "qat", "--device", "cpu"]
    assert main(arguments) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "featherweight: interrupted"
    assert list((run.path / "compressed").iterdir()) == []
