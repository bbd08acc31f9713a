import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from featherweight.cli import main
from featherweight.prediction import predict, workers
from featherweight.run import MODEL, TRANSFORMER, Run
from tests.helpers.command_line import TINY, Capture, call, error_line, frozen, names, shell


def failing(error: BaseException) -> Callable[[predict.PredictConfig], None]:
    def fail(_: predict.PredictConfig) -> None:
        raise error

    return fail


def test_ctrl_c_ends_with_130(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "predict", failing(KeyboardInterrupt()))
    assert main(["predict", "hi"]) == 130
    assert "interrupted" in error_line(capsys)


def test_ctrl_c_while_training_says_how_to_resume(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, here: Path, tiny_data: Path
) -> None:
    from lstm import fit, train

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    arguments = ["train", "--data", tiny_data, "--name", "mine", *TINY]
    with monkeypatch.context() as patched:
        patched.setattr(fit, "save_checkpoint", interrupt)
        assert call(*arguments) == 130
    assert error_line(capsys) == "featherweight: interrupted: no run was written"
    with monkeypatch.context() as patched:
        patched.setattr(train, "evaluate", interrupt)
        assert call(*arguments) == 130
    hint = "to continue, give the same flags, --name mine and --resume"
    assert error_line(capsys) == f"featherweight: interrupted: {hint}"
    assert call(*arguments, "--resume") == 0
    assert (here / "outputs" / "mine" / MODEL).exists()


def test_ctrl_c_while_fine_tuning_says_how_to_resume(
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
        patched.setattr(finetune, "evaluate", interrupt)
        assert call(*arguments) == 130
    hint = "to continue, give the same flags, --name mine and --resume"
    assert error_line(capsys) == f"featherweight: interrupted: {hint}"
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
    assert error_line(capsys) == "featherweight: interrupted: no run was written"
    assert list(here.rglob("*")) == [here / "outputs"]


def test_ctrl_c_while_classifying_a_file_leaves_no_output(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, here: Path, texts: Path, tiny_run: Path
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(workers, "answers", interrupt)
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
def test_a_file_size_limit_is_one_line_and_leaves_no_output(here: Path) -> None:
    (here / "in.csv").write_text("text\n" + "so happy\n" * 5_000)
    arguments = ["predict", "--weights", "pretrained", "--csv", "in.csv"]
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
def test_full_disk_at_stdout_is_a_one_line_error() -> None:
    with Path("/dev/full").open("w") as full:
        done = shell("sys.exit(main(['--help']))", stdout=full)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such pipes")
def test_closed_pipe_is_not_an_error() -> None:
    read, write = os.pipe()
    os.close(read)
    arguments = ["predict", "--weights", "pretrained", *["so happy"] * 2_000]
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
for arguments in {commands!r}:
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code
    sys.stderr.write(f"exit code {{code}}\\n")
"""


@pytest.mark.parametrize("library", ["transformers", "accelerate"])
def test_missing_library_of_transformers_names_the_extra(
    here: Path, tiny_features: Path, tiny_bert: Path, library: str
) -> None:
    verbs = ["finetune", "features", "test_transformer"]
    failing_commands = [["finetune"]]
    if library == "transformers":
        failing_commands += [
            ["features"],
            ["test_transformer", "--model", "bert-base", "--latency_only"],
            ["predict", "so happy", "--weights", str(tiny_features)],
            ["predict", "so happy", "--weights", str(tiny_bert)],
        ]
    commands = [*([verb, "--help"] for verb in verbs), *failing_commands]
    code = BLOCKED.format(library=library, commands=commands)
    done = shell(code, stdout=subprocess.PIPE)
    message = (
        f"featherweight: {library} is not installed; get it with: "
        "pip install 'featherweight[transformers]'\nexit code 1\n"
    )
    assert done.stderr == "exit code 0\n" * 3 + message * len(failing_commands)
    assert done.stdout.count("usage: featherweight") == 3
    assert done.stdout.startswith("usage: featherweight finetune")
    assert names(here) == []


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (ZeroDivisionError(), ModuleNotFoundError("x", name="lstm.nothing")):
        monkeypatch.setattr(predict, "predict", failing(error))
        with pytest.raises(type(error)):
            main(["predict", "hi"])


def test_sigterm_ends_like_ctrl_c(tmp_path: Path, tiny_data: Path) -> None:
    code = """
import os, signal, sys
from featherweight.cli import main
from lstm import train
train.evaluate = lambda *_: os.kill(os.getpid(), signal.SIGTERM)
sys.exit(main(sys.argv[1:]))
"""
    arguments = ["train", "--data", tiny_data, "--name", "mine", *TINY]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 143
    hint = "to continue, give the same flags, --name mine and --resume"
    assert done.stderr.splitlines()[-1] == f"featherweight: interrupted: {hint}"
    assert Run(tmp_path / "outputs" / "mine").cut_off
