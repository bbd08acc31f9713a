import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from featherweight.cli import main
from featherweight.prediction import predict, workers
from featherweight.run import MODEL, TRANSFORMER
from tests.helpers.command_line import TINY, Capture, call, error_line, frozen, names, shell


def failing(error: BaseException) -> Callable[[predict.PredictConfig], None]:
    def fail(_: predict.PredictConfig) -> None:
        raise error

    return fail


def test_ctrl_c_ends_with_130(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "predict", failing(KeyboardInterrupt()))
    assert main(["predict", "hi"]) == 130
    assert "interrupted" in error_line(capsys)


def test_ctrl_c_while_training_says_how_to_go_on(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, here: Path, tiny_data: Path
) -> None:
    from lstm import fit

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    arguments = ["train", "--data", tiny_data, "--name", "mine", *TINY]
    with monkeypatch.context() as patched:
        patched.setattr(fit, "save_checkpoint", interrupt)
        assert call(*arguments) == 130
    assert "--resume" in error_line(capsys)
    assert call(*arguments, "--resume") == 0
    assert (here / "outputs" / "mine" / MODEL).exists()


def test_ctrl_c_while_fine_tuning_says_how_to_go_on(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, here: Path, tiny_bert: Path, tiny_data: Path
) -> None:
    from transformer_eval import finetune

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    arguments = [
        "finetune", "--model", tiny_bert, "--data", tiny_data, "--name", "mine", "--epochs", "1",
        "--device", "cpu",
    ]  # fmt: skip
    with monkeypatch.context() as patched:
        patched.setattr(finetune, "training_curves", interrupt)
        assert call(*arguments) == 130
    assert "go on with the same command and --resume" in error_line(capsys)
    assert call(*arguments, "--resume") == 0
    out = capsys.readouterr().out
    assert out.startswith("mine on moods, validation split, n = 12")
    assert out.endswith(f"run: {Path('outputs') / 'mine'}\n")
    assert (here / "outputs" / "mine" / TRANSFORMER / MODEL).exists()


def test_ctrl_c_while_embedding_is_one_line_and_leaves_no_run(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, here: Path, tiny_bert: Path, tiny_data: Path
) -> None:
    from transformer_eval.frozen_encoder import Encoder

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Encoder, "embed", interrupt)
    assert call("features", *frozen(here, tiny_bert, tiny_data)) == 130
    assert error_line(capsys) == "featherweight: interrupted"
    assert names(here) == []


def test_ctrl_c_while_answering_a_file_leaves_no_output(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, here: Path, texts: Path, tiny_run: Path
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(workers, "prediction_cells", interrupt)
    assert call("predict", "--weights", tiny_run, "--csv", texts) == 130
    error_line(capsys)
    assert names(here) == ["in.csv"]


def test_a_full_disk_is_one_line_and_leaves_no_output(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, here: Path, texts: Path, tiny_run: Path
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert call("predict", "--weights", tiny_run, "--csv", texts) == 1
    assert os.strerror(errno.ENOSPC) in error_line(capsys)
    assert names(here) == ["in.csv"]


def test_a_full_disk_while_training_is_one_line_and_leaves_no_run(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, here: Path, tiny_data: Path
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert call("train", "--data", tiny_data, "--name", "mine", *TINY) == 1
    assert os.strerror(errno.ENOSPC) in error_line(capsys)
    assert names(here / "outputs") == []


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_a_file_size_limit_is_one_line_and_leaves_no_output(here: Path, tiny_run: Path) -> None:
    (here / "in.csv").write_text("text\n" + "so happy\n" * 5_000)
    arguments = ["predict", "--weights", str(tiny_run), "--csv", "in.csv"]
    done = shell(
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        f"sys.exit(main({arguments}))"
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("featherweight: ")
    assert names(here) == ["in.csv"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_behind_stdout_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = shell("sys.exit(main(['--help']))", stdout=full)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such pipes")
def test_a_reader_that_leaves_is_no_failure(tiny_run: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    arguments = ["predict", "--weights", str(tiny_run), *["so happy"] * 2_000]
    try:
        done = shell(f"sys.exit(main({arguments}))", stdout=write)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("library", "extra"), [("tabulate", "train"), ("torch", "train")])
def test_a_missing_library_is_one_line_with_the_extra_to_install(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, library: str, extra: str
) -> None:
    error = ModuleNotFoundError(f"No module named {library!r}", name=f"{library}.inside")
    monkeypatch.setattr(predict, "predict", failing(error))
    assert main(["predict", "hi"]) == 1
    line = error_line(capsys)
    assert f"featherweight[{extra}]" in line
    assert library in line


BLOCKED = """
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {library!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
sys.exit(main({arguments!r}))
"""


@pytest.mark.parametrize(
    ("library", "arguments"),
    [
        ("transformers", ["finetune"]),
        ("transformers", ["features"]),
        ("transformers", ["test_transformer", "--model", "bert-base", "--latency_only"]),
        ("transformers", ["predict", "so happy", "--weights", "FEATURES"]),
        ("transformers", ["predict", "so happy", "--weights", "BERT"]),
        ("accelerate", ["finetune"]),
    ],
    ids=str,
)
def test_without_the_libraries_of_transformers_their_extra_is_named(
    here: Path, tiny_features: Path, tiny_bert: Path, library: str, arguments: list[str]
) -> None:
    places = {"FEATURES": str(tiny_features), "BERT": str(tiny_bert)}
    given = [places.get(word, word) for word in arguments]
    done = shell(BLOCKED.format(library=library, arguments=given), stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"featherweight: {library} is not installed; get it with: "
        "pip install 'featherweight[transformers]'\n"
    )
    assert names(here) == []


@pytest.mark.parametrize("verb", ["finetune", "features", "test_transformer"])
def test_the_help_needs_no_library_of_transformers(verb: str) -> None:
    done = shell(
        BLOCKED.format(library="transformers", arguments=[verb, "--help"]), stdout=subprocess.PIPE
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: featherweight {verb}")


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (ZeroDivisionError(), ModuleNotFoundError("x", name="lstm.nothing")):
        monkeypatch.setattr(predict, "predict", failing(error))
        with pytest.raises(type(error)):
            main(["predict", "hi"])
