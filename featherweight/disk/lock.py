"""Locks: one process at a time writes a run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from featherweight.disk.atomic import naming
from featherweight.errors import UsageError

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]
    import msvcrt


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock on a path that is to be written, which need not exist.

    The system releases the lock of a killed process.

    Raises:
        UsageError: Another process holds it; the message names the process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.with_name(f".{path.name}.lock")
    descriptor = _acquired(file, path)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        file.unlink(missing_ok=True)  # before it is released: afterwards it may be another's
        os.close(descriptor)


def _acquired(file: Path, path: Path) -> int:
    while True:
        with naming(path, file):
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            _lock(descriptor)
        except OSError:
            holder = os.read(descriptor, 20).decode(errors="replace").strip()
            os.close(descriptor)
            raise UsageError(
                f"{path} is being written by process {holder or 'unknown'}: wait until it is "
                "finished, or choose another name"
            ) from None
        if file.exists() and os.path.samestat(os.fstat(descriptor), file.stat()):
            return descriptor
        os.close(descriptor)  # its last holder has removed it in the meantime


def _lock(descriptor: int) -> None:
    if fcntl:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
