"""Atomic replacement of files and folders.

A killed process may leave hidden files next to the target, named after it and the process:
`.NAME.PID.tmp` is an incomplete file, `.NAME.PID.new` a folder that was to take the place of
another, and `.NAME.PID.old` the folder that it replaced. The next writer removes them.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

from featherweight.errors import UsageError

# Errors of a write, which do not name a file.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


@contextmanager
def atomic_open(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a temporary file that replaces `path` when the context ends without an error.

    If the process is killed, the file has its old content or the new one.

    Args:
        path: The file to write.
        mode: "w" (UTF-8 text, line ends as written) or "wb". Half of a surrogate pair, as in a file
            name that is not UTF-8, is written as an escape sequence, which JSON reads back.

    Raises:
        OSError: The file cannot be written; the error names `path`.
    """
    _remove_leftovers(path)
    temporary = _hidden(path, "tmp")
    text = {} if "b" in mode else {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    try:
        with naming(path, temporary):
            # Exclusive creation never follows a link that somebody has put there.
            with temporary.open(mode.replace("w", "x"), **text) as file:  # type: ignore[call-overload]
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yields a temporary folder that replaces `path` when the context ends without an error.

    Raises:
        UsageError: The path has no name.
        OSError: The folder cannot be written; the error names `path`.
    """
    if path.name in ("", ".", ".."):
        raise UsageError(f"{path} is not a valid name for a new folder")
    recover(path)
    _remove_leftovers(path)
    temporary = _hidden(path, "new")
    try:
        with naming(path, temporary):
            temporary.mkdir(parents=True)
            yield temporary
            replace_directory(path, temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def replace_directory(path: Path, new: Path) -> None:
    """Puts a complete folder in the place of another, which may be missing.

    If the process is killed in between, `recover` finishes it.
    """
    _settle(new)
    old = _hidden(path, "old")
    if path.exists():
        complete = _hidden(path, "new")
        if new != complete:
            new.rename(complete)
        path.rename(old)
        new = complete
    try:
        new.rename(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    _sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover(path: Path) -> None:
    """Finishes the replacement of a folder that a killed process has left half done."""
    if path.exists() or not path.parent.is_dir():
        return
    for old, pid in _leftovers(path, "old"):
        new = path.with_name(f".{path.name}.{pid}.new")
        # The old folder is put aside only when the new one is complete.
        (new if new.exists() else old).rename(path)
        shutil.rmtree(old, ignore_errors=True)
        return


def recover_all(folder: Path) -> None:
    """Calls `recover` for everything in a folder that needs it."""
    for old in sorted(folder.glob(".*.old")):
        match = re.fullmatch(r"\.(.+)\.\d+\.old", old.name)
        if match:
            recover(folder / match[1])


def is_alive(pid: int) -> bool:
    """Returns whether a process of this machine exists, the present one not counted."""
    if pid == os.getpid():
        return False  # its number has been used before, as is common in containers
    if os.name == "nt":
        return True  # a signal would end it there
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it exists and belongs to somebody else
        return True
    return True


@cache
def _remove_leftovers(path: Path) -> None:
    """Removes what killed processes have left of their attempts to write a path."""
    for kind in ("tmp", "new", "old"):
        for leftover, _ in _leftovers(path, kind):
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def _leftovers(path: Path, kind: str) -> list[tuple[Path, int]]:
    """Returns the files that no living process writes, and the numbers of their processes."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.{kind}")
    if not path.parent.is_dir():
        return []
    matches = [(entry, pattern.fullmatch(entry.name)) for entry in path.parent.iterdir()]
    return [
        (entry, int(match[1])) for entry, match in matches if match and not is_alive(int(match[1]))
    ]


def _hidden(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{kind}")


@contextmanager
def naming(path: Path, temporary: Path) -> Iterator[None]:
    """Makes errors about a temporary file name the path that the user knows."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in _DISK_ERRORS:
            error.filename = str(path)
        elif error.filename and Path(str(error.filename)).is_relative_to(temporary):
            inside = Path(str(error.filename)).relative_to(temporary)
            error.filename, error.filename2 = str(path / inside), None
        raise


def _settle(folder: Path) -> None:
    """Writes the files of a folder to the disk, and gives them the usual permissions."""
    readable = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(readable)
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
    _sync(folder)


def _sync(folder: Path) -> None:
    with suppress(OSError):  # not every system can
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
