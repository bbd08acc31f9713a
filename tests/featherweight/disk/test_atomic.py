"""Atomic replacement: a failure or a kill at any moment leaves the old or the new content."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from featherweight.disk.atomic import (
    atomic_directory,
    atomic_open,
    is_alive,
    recover,
    recover_all,
    replace_directory,
)  # fmt: skip
from featherweight.errors import UsageError

DEAD_PID = 2**22 + 1  # above the highest process number of Linux


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def folder_with(path: Path, content: str) -> Path:
    path.mkdir()
    (path / "content").write_text(content)
    return path


@pytest.mark.parametrize(("mode", "content"), [("w", "a\r\nb\nü😂"), ("wb", b"\x00\xff\r\n")])
def test_file_is_written_unchanged(tmp_path: Path, mode: str, content: Any) -> None:
    path = tmp_path / "file"
    with atomic_open(path, mode) as file:
        file.write(content)
        assert not path.exists()
    expected = content if isinstance(content, bytes) else content.encode()
    assert path.read_bytes() == expected
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_an_error_leaves_the_old_file_alone(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(error), atomic_open(path) as file:
        file.write("new")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_full_disk_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "file"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"), atomic_open(path) as file:
        file.write("new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_kill_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    code = (
        "import os, sys; from pathlib import Path\n"
        "from featherweight.disk.atomic import atomic_open\n"
        "with atomic_open(Path(sys.argv[1])) as file:\n"
        "    file.write('new' * 100_000); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    assert path.read_text() == "old"


def test_written_file_respects_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with atomic_open(tmp_path / "file") as file:
            file.write("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


def test_a_temporary_file_follows_no_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = tmp_path / "file"
    # A leftover of a process with this number: it is removed, and what it points to is not.
    (tmp_path / f".file.{os.getpid()}.tmp").symlink_to(victim)
    with atomic_open(path) as file:
        file.write("new")
    assert victim.read_text() == "precious"
    assert path.read_text() == "new"


def test_a_full_disk_names_the_file_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space") as caught, atomic_open(tmp_path / "file"):
        pass
    assert caught.value.filename == str(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    for context in (atomic_open, atomic_directory):
        with pytest.raises(OSError) as caught, context(tmp_path / "file"):  # type: ignore[operator]
            pass
        assert caught.value.filename == str(tmp_path / "file")
    tmp_path.chmod(0o700)


def test_another_error_inside_the_context_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, atomic_directory(tmp_path / "new"):
        (tmp_path / "elsewhere").read_text()
    assert caught.value.filename == str(tmp_path / "elsewhere")


def test_leftovers_of_dead_processes_are_removed_by_the_next_writer(tmp_path: Path) -> None:
    (tmp_path / f".file.{DEAD_PID}.tmp").write_text("half")
    folder_with(tmp_path / f".folder.{DEAD_PID}.new", "half")
    parent = os.getppid()
    (tmp_path / f".file.{parent}.tmp").write_text("still being written")
    with atomic_open(tmp_path / "file") as file:
        file.write("new")
    with atomic_directory(tmp_path / "folder") as folder:
        (folder / "content").write_text("new")
    assert names(tmp_path) == [f".file.{parent}.tmp", "file", "folder"]


def test_a_folder_replaces_the_old_one(tmp_path: Path) -> None:
    path = folder_with(tmp_path / "folder", "old")
    (path / "more").write_text("old")
    with atomic_directory(path) as folder:
        (folder / "content").write_text("new")
        assert (path / "content").read_text() == "old"
    assert (path / "content").read_text() == "new"
    assert names(path) == ["content"]
    assert names(tmp_path) == ["folder"]


def test_files_of_a_folder_have_the_usual_permissions(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with atomic_directory(tmp_path / "folder") as folder:
            (folder / "weights").write_text("x")
            (folder / "weights").chmod(0o600)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "folder" / "weights").stat().st_mode) == 0o644


@pytest.mark.parametrize("step", [1, 2])
def test_an_error_during_the_replacement_restores_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    path = folder_with(tmp_path / "folder", "old")
    rename, calls = Path.rename, []

    def interrupted(source: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == step:
            raise KeyboardInterrupt
        return rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt), atomic_directory(path) as folder:
            (folder / "content").write_text("new")
    assert (path / "content").read_text() == "old"
    assert names(tmp_path) == ["folder"]


def test_a_kill_at_any_step_of_a_replacement_is_recovered(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from featherweight.disk import atomic
step, calls = int(sys.argv[2]), []
def killed(function):
    def call(*arguments, **options):
        calls.append(function)
        if len(calls) == step:
            os.kill(os.getpid(), 9)
        return function(*arguments, **options)
    return call
Path.rename = killed(Path.rename)
atomic.shutil.rmtree = killed(atomic.shutil.rmtree)
atomic._sync = killed(atomic._sync)
with atomic.atomic_directory(Path(sys.argv[1])) as folder:
    (folder / "content").write_text("new")
"""
    contents, codes = [], []
    for step in range(1, 8):
        parent = tmp_path / str(step)
        parent.mkdir()
        path = folder_with(parent / "folder", "old")
        process = subprocess.run([sys.executable, "-c", code, path, str(step)], check=False)
        codes.append(process.returncode)
        recover_all(parent)
        contents.append((path / "content").read_text())
        with atomic_directory(path) as folder:
            (folder / "content").write_text("newest")
        assert names(parent) == ["folder"]
    assert codes == [-9, -9, -9, -9, -9, 0, 0]
    # Once the old folder is aside, the new one is complete and takes its place.
    assert contents == ["old", "old", "new", "new", "new", "new", "new"]


def test_nothing_is_recovered_where_nothing_is_missing(tmp_path: Path) -> None:
    path = folder_with(tmp_path / "folder", "present")
    folder_with(tmp_path / f".folder.{DEAD_PID}.old", "old")
    recover(path)
    recover(tmp_path / "missing" / "folder")
    assert (path / "content").read_text() == "present"


def test_a_folder_under_another_name_is_put_in_place(tmp_path: Path) -> None:
    path = folder_with(tmp_path / "folder", "old")
    replace_directory(path, folder_with(tmp_path / "elsewhere", "new"))
    assert (path / "content").read_text() == "new"
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("path", [Path(), Path(".."), Path("/")])
def test_a_path_without_a_name_is_refused(path: Path) -> None:
    with pytest.raises(UsageError, match="not a valid name"), atomic_directory(path):
        pass


def test_which_processes_are_alive() -> None:
    assert is_alive(os.getppid())
    assert is_alive(1)  # it belongs to somebody else
    assert not is_alive(DEAD_PID)
    assert not is_alive(10**30)
    assert not is_alive(os.getpid())
