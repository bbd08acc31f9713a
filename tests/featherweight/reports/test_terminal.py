import io
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from featherweight.cli import VERBS, main
from featherweight.errors import UsageError
from featherweight.reports.terminal import OneLineFormatter, printable
from featherweight.run import Run
from tests.helpers.command_line import call, error_line, shell

ENCODINGS: dict[str, dict[str, str]] = {
    **{name: {"PYTHONIOENCODING": name} for name in ("cp1252", "cp932", "ascii")},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}
HELP = """
for verb in {verbs!r}:
    try:
        main([verb, "--help"])
    except SystemExit as end:
        assert end.code == 0
"""
posix = pytest.mark.skipif(sys.platform == "win32", reason="there is no such shell")


@pytest.fixture(params=ENCODINGS)
def encoding(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """An encoding of the terminal that lacks most characters."""
    for name in ("PYTHONIOENCODING", "PYTHONUTF8", "LC_ALL", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ENCODINGS[request.param].items():
        monkeypatch.setenv(name, value)
    return str(request.param)


def redirected(redirection: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command line with a redirection of the shell."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONUNBUFFERED", None)
    command = ["sh", "-c", f'exec "$0" "$@" {redirection}', sys.executable, "-m", "featherweight"]
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, env=environment, check=False
    )


def test_help_of_each_verb_fits_any_encoding(encoding: str) -> None:
    done = shell(HELP.format(verbs=list(VERBS)), stdout=subprocess.PIPE, errors="replace")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("usage: featherweight") == len(VERBS)


def test_results_and_errors_fit_any_encoding(encoding: str, tmp_path: Path, tiny_run: Path) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "tiny")
    # "–" is a cell of the table of `test`; "😂" is in no table of characters but Unicode.
    commands = [
        ["test", "--weights", str(run), "--device", "cpu"],
        ["predict", "--weights", str(run), "so happy \U0001f602"],
        ["\U0001f602"],
    ]
    code = (
        "from featherweight import test\ntest._measure = lambda *_: []\n"
        f"for command in {commands!a}:\n    sys.stderr.write(f'{{main(command)}}\\n')"
    )
    done = shell(code, stdout=subprocess.PIPE, errors="replace")
    assert "Traceback" not in done.stderr
    assert "Logging error" not in done.stderr
    codes = [line for line in done.stderr.splitlines() if line.isdecimal()]
    assert codes == ["0", "0", "2"]
    assert "\\U0001f602" in done.stderr.splitlines()[-2]
    assert "so happy ?" in done.stdout


def test_json_keeps_what_the_terminal_cannot_show(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tiny_run: Path,
    tmp_path: Path,
) -> None:
    from featherweight import test as testing

    run = shutil.copytree(tiny_run, tmp_path / "tiny")

    evaluate = testing.evaluate
    name = "\U0001f602 \x9b31m"
    monkeypatch.setattr(testing, "evaluate", lambda model, split, _: evaluate(model, split, name))
    assert main(["test", "--weights", str(run), "--device", "cpu", "--json"]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out)["data"] == name


def test_argument_that_is_not_utf8_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["test", "--weights", "gone\udcff"], ["train", "--data", "d\udcc3\udca4"]):
        assert call(*arguments) == 2
        assert "is not UTF-8: set the terminal to UTF-8" in error_line(capsys)


def test_path_that_is_not_utf8_is_recorded_and_a_run_of_that_name_refused(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "mine", False, {"config.json": {"data": "d\udcff", "ü": 1}})
    assert run.read_json("config.json") == {"data": "d\udcff", "ü": 1}
    assert "ü" in run.file("config.json").read_text(encoding="utf-8")
    with pytest.raises(UsageError, match="not UTF-8"):
        Run.create(tmp_path, "mine\udcff", False, {})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\n b\tc", "a b c"),
        ("\x1b[31mred\x1b[0m", "�[31mred�[0m"),
        ("\x9b2J\x07\x7f", "�2J��"),
        ("abc\u202ecba", "abc�cba"),
        ("\udcff", "�"),
        ("👩\u200d👧 naïve می\u200cخواهم", "👩\u200d👧 naïve می\u200cخواهم"),
    ],
)
def test_control_characters_are_replaced_and_letters_kept(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_log_lines_are_single_lines_without_control_characters() -> None:
    record = logging.makeLogRecord({"msg": "%s occurs twice", "args": ("a\n\x1b[2J",)})
    assert OneLineFormatter().format(record) == "a �[2J occurs twice"


def test_streams_of_another_program_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()  # as in a notebook
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["--version"]) == 0
    assert out.getvalue().startswith("featherweight ")


@posix
@pytest.mark.parametrize("arguments", [["--version"], ["train", "--help"], ["gone"]])
def test_closed_stdout_is_one_line(arguments: list[str]) -> None:
    done = redirected(">&-", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("featherweight: stdout is closed")
    assert done.stderr.count("\n") == 1


@posix
@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_stderr_that_cannot_be_written_changes_no_exit_code(redirection: str) -> None:
    if "full" in redirection and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    done = redirected(redirection, "--version")
    assert (done.returncode, done.stdout[:14]) == (0, "featherweight ")
    done = redirected(redirection, "gone")
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_full_disk_at_stdout_is_one_line_for_the_help_of_a_verb() -> None:
    done = redirected(">/dev/full", "train", "--help")
    assert done.returncode == 1
    assert done.stderr == "featherweight: output: No space left on device\n"


@posix
def test_closed_pipe_is_no_error_for_the_help_of_a_verb() -> None:
    done = redirected("| true", "train", "--help")
    assert done.stderr == ""
