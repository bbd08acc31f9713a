import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from compress.distillation.teachers import ANSWERS
from featherweight import load
from featherweight.cli import main
from featherweight.errors import FeatherweightError, WeightsError
from featherweight.run import CHECKPOINT, MODEL, Run, newest_run
from lstm import fit
from lstm.classifier import TextClassifier
from tests.helpers.variants import compressed, contents
from transformer_eval.safe_trainer import History

pytestmark = pytest.mark.usefixtures("undrawn")


def fingerprint(path: Path) -> str:
    """The hash over tensors and metadata; the order of the header may differ."""
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return str(header["__metadata__"]["sha256"])


TRAINED = ["qat", "prune+int8", "distill"]


@pytest.fixture
def epochs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Counts the epochs; one that is to fail can be put in front as "killed"."""
    counted: list[str] = []
    train_epoch = fit._train_epoch

    def watched(*given: Any) -> float:
        if counted == ["kill", "epoch"]:
            raise KeyboardInterrupt
        counted.append("epoch")
        return train_epoch(*given)

    monkeypatch.setattr(fit, "_train_epoch", watched)
    return counted


def killed(run: Run, epochs: list[str], method: str, **flags: Any) -> None:
    """Ends a compression in its second epoch."""
    epochs[:] = ["kill"]
    with pytest.raises(KeyboardInterrupt):
        compressed(run.path, method, **flags)
    epochs.clear()


@pytest.mark.parametrize("method", TRAINED)
def test_a_compression_killed_in_its_second_epoch_ends_with_the_same_weights(
    run: Run, tmp_path: Path, epochs: list[str], method: str
) -> None:
    other = Run(Path(shutil.copytree(run.path, tmp_path / "other" / "tiny")))
    whole = compressed(other.path, method)
    needed = len(epochs)
    killed(run, epochs, method)
    assert not (run.path / "compressed" / method).exists()
    assert (run.path / "compressed" / f".{method}" / CHECKPOINT).is_file()
    variant = compressed(run.path, method)
    assert len(epochs) == needed - 1
    assert fingerprint(variant.file(MODEL)) == fingerprint(whole.file(MODEL))
    assert variant.read_json("evaluation.json") == whole.read_json("evaluation.json")
    assert not (run.path / "compressed" / f".{method}").exists()


@pytest.mark.parametrize("flags", [{"retraining_rate": 2e-3}, {"seed": 5}, {"sparsity": 0.6}])
def test_other_flags_start_anew(
    run: Run, tmp_path: Path, epochs: list[str], flags: dict[str, Any]
) -> None:
    other = Run(Path(shutil.copytree(run.path, tmp_path / "other" / "tiny")))
    whole = compressed(other.path, "prune", **flags)
    killed(run, epochs, "prune")
    variant = compressed(run.path, "prune", **flags)
    assert len(epochs) == 3
    assert fingerprint(variant.file(MODEL)) == fingerprint(whole.file(MODEL))


def test_to_replace_a_variant_goes_on_as_well(run: Run, epochs: list[str]) -> None:
    older = fingerprint(compressed(run.path, "prune", retraining_epochs=1).file(MODEL))
    killed(run, epochs, "prune", overwrite=True)
    assert fingerprint(run.path / "compressed" / "prune" / MODEL) == older
    newer = compressed(run.path, "prune", overwrite=True)
    assert len(epochs) == 2
    assert fingerprint(newer.file(MODEL)) != older


def test_methods_that_were_cut_off_do_not_disturb_others(run: Run, epochs: list[str]) -> None:
    killed(run, epochs, "qat")
    compressed(run.path, "prune")
    assert len(epochs) == 3
    compressed(run.path, "qat")
    assert len(epochs) == 5
    assert newest_run(run.path.parent).path == run.path


@pytest.mark.parametrize("method", ["fp16", *TRAINED])
def test_success_leaves_no_workspace(run: Run, method: Any) -> None:
    compressed(run.path, method)
    left = {path.name for path in (run.path / "compressed").iterdir() if path.is_dir()}
    assert left - {ANSWERS} == {method}


@pytest.mark.parametrize(
    ("method", "flags"),
    [
        ("distill", {"teachers": [Path("nowhere")]}),
        ("distill", {"unlabelled": Path("nowhere.csv")}),
    ],
)
def test_what_a_method_refuses_leaves_no_workspace(
    run: Run, method: str, flags: dict[str, Any]
) -> None:
    before = contents(run.path)
    with pytest.raises(FeatherweightError, match="nowhere"):
        compressed(run.path, method, **flags)
    assert contents(run.path) == before


def test_a_full_disk_after_the_training_does_not_lose_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, epochs: list[str]
) -> None:
    replace = Path.replace

    def full(path: Path, target: Path) -> Path:
        if target.name == "confusion_matrix.png":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(path, target)

    with monkeypatch.context() as patched, pytest.raises(OSError):
        patched.setattr(Path, "replace", full)
        compressed(run.path, "qat")
    assert len(epochs) == 3
    compressed(run.path, "qat")
    assert len(epochs) == 3


def test_an_origin_trained_anew_starts_anew(run: Run, tmp_path: Path, epochs: list[str]) -> None:
    killed(run, epochs, "qat")
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


# Damaged


@pytest.mark.parametrize("left", [b"", b"no tensors", None], ids=["empty", "foreign", "half"])
def test_a_damaged_training_is_removed_and_the_same_command_starts_anew(
    run: Run, epochs: list[str], left: bytes | None
) -> None:
    killed(run, epochs, "qat")
    place = run.path / "compressed" / ".qat"
    content = (place / CHECKPOINT).read_bytes()
    (place / CHECKPOINT).write_bytes(content[: len(content) // 2] if left is None else left)
    with pytest.raises(WeightsError, match="give the same command again") as caught:
        compressed(run.path, "qat")
    assert str(place) in str(caught.value)
    assert "--overwrite" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not place.exists()
    compressed(run.path, "qat")
    assert len(epochs) == 3


def test_a_damaged_training_of_a_transformer_is_removed(
    bert_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, begun = History.on_epoch_begin, []

    def second_is_killed(*given: Any, **named: Any) -> None:
        begun.append("epoch")
        if len(begun) == 2:
            raise KeyboardInterrupt
        begin(*given, **named)

    monkeypatch.setattr(History, "on_epoch_begin", second_is_killed)
    with pytest.raises(KeyboardInterrupt, match=r"^go on with the same command$"):
        compressed(bert_run.path, "prune", retraining_epochs=2)
    place = bert_run.path / "compressed" / ".prune"
    (state,) = place.glob("checkpoints/*/state.safetensors")
    state.write_bytes(b"no tensors")
    with pytest.raises(WeightsError, match="give the same command again"):
        compressed(bert_run.path, "prune", retraining_epochs=2)
    assert not place.exists()
    compressed(bert_run.path, "prune", retraining_epochs=2)
    assert len(begun) == 4


def test_what_is_wrong_with_a_teacher_does_not_cost_a_training(
    run: Run, tmp_path: Path, epochs: list[str]
) -> None:
    teacher = Path(shutil.copytree(run.path, tmp_path / "teacher"))
    killed(run, epochs, "distill", teachers=[teacher])
    (teacher / MODEL).write_bytes(b"no tensors")
    with pytest.raises(WeightsError) as caught:
        compressed(run.path, "distill", teachers=[teacher])
    assert str(teacher) in str(caught.value)
    assert (run.path / "compressed" / ".distill" / CHECKPOINT).is_file()


def test_a_note_of_the_workspace_that_cannot_be_read_starts_anew(
    run: Run, epochs: list[str]
) -> None:
    killed(run, epochs, "qat")
    (run.path / "compressed" / ".qat" / "config.json").write_text("{")
    compressed(run.path, "qat")
    assert len(epochs) == 3


# Ctrl-C


def test_ctrl_c_says_how_to_go_on_where_there_is_something_to_go_on_with(
    run: Run, epochs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compress", "--weights", str(run.path), "--method", "qat", "--device", "cpu"]
    epochs[:] = ["kill"]
    assert main(arguments) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "featherweight: interrupted: go on with the same command"
    epochs.clear()
    assert main(arguments) == 0
    assert len(epochs) == 2


def test_ctrl_c_before_the_first_epoch_ends_promises_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "_train_epoch", interrupt)
    arguments = ["compress", "--weights", str(run.path), "--method", "qat", "--device", "cpu"]
    assert main(arguments) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "featherweight: interrupted"
    assert list((run.path / "compressed").iterdir()) == []
