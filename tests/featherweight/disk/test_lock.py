"""Locks between processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from featherweight.disk.lock import locked
from featherweight.errors import UsageError

HOLDER = """
import sys, time
from pathlib import Path
from featherweight.disk.lock import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_the_second_writer_is_told_the_process(tmp_path: Path) -> None:
    path = tmp_path / "outputs" / "mine"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin and holder.stdout
    assert holder.stdout.readline() == b"locked\n"
    held = f"mine is being written by process {holder.pid}: wait"
    with pytest.raises(UsageError, match=held), locked(path):
        pass
    with locked(path.with_name("other")):
        pass
    holder.kill()
    holder.wait()
    holder.stdin.close()
    holder.stdout.close()
    with locked(path):  # the system has released it
        assert (path.parent / ".mine.lock").read_text() == str(os.getpid())
    assert list(path.parent.iterdir()) == []


def test_an_error_names_the_path_and_not_the_lock(tmp_path: Path) -> None:
    (tmp_path / ".mine.lock").mkdir()
    with pytest.raises(IsADirectoryError) as caught, locked(tmp_path / "mine"):
        pass
    assert caught.value.filename == str(tmp_path / "mine")


def test_a_lock_is_released_after_an_error(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="any"), locked(tmp_path / "mine"):
            raise ValueError("any")


def test_only_one_of_many_processes_holds_the_lock(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from featherweight.disk.lock import locked
from featherweight.errors import UsageError
path, count = Path(sys.argv[1]), 0
while count < 50:
    try:
        with locked(path):
            value = int(path.read_text())
            time.sleep(0.0005)
            path.write_text(str(value + 1))
            count += 1
    except UsageError:
        time.sleep(0.0005)
"""
    path = tmp_path / "counter"
    path.write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", code, path]) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert path.read_text() == "200"
