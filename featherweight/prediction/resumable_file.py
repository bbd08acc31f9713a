"""A file that grows batch by batch, and how far it came: a killed run goes on where it was.

`OUT.part` grows until it is whole and becomes OUT. `OUT.progress` says how many rows and bytes of
it are safe on the disk, and what they are the answers to; whatever stands behind them is cut off
when the run goes on.
"""

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from featherweight.errors import DataError, UsageError
from featherweight.run import atomic_open

logger = logging.getLogger("featherweight")

_RECORD_SECONDS = 1.0  # between two records: to wait for the disk after each batch would be slow


class ResumableFile:
    """An open file that grows.

    Attributes:
        file: Where it grows, at its end.
        rows: Rows that it holds.
    """

    def __init__(self, path: Path, origin: Mapping[str, Any], resume: bool) -> None:
        """Opens a file, or what there is of it.

        Args:
            path: The file to be.
            origin: What its content follows from, fit for JSON; a record of another is refused.
            resume: Go on with what there is.

        Raises:
            UsageError: There is nothing to go on with, or it follows from something else.
        """
        self._path = path
        self._part, self._progress = part_path(path), progress_path(path)
        self._origin = json.loads(json.dumps(origin))
        self._recorded_at = time.monotonic()
        self.rows, size_bytes = self._recorded() if resume else (0, 0)
        self._recorded_rows = self.rows
        if not resume:
            # First, lest a record of an earlier run should seem to be of this one.
            self._progress.unlink(missing_ok=True)
        self.file: IO[bytes] = self._part.open("r+b" if resume else "wb")
        self.file.truncate(size_bytes)
        self.file.seek(size_bytes)

    def _recorded(self) -> tuple[int, int]:
        """Returns the rows and bytes that are there."""
        anew = "run the same command without --resume to begin anew"
        try:
            record = json.loads(self._progress.read_text(encoding="utf-8"))
            rows, size_bytes = int(record["rows"]), int(record["bytes"])
            origin = dict(record["origin"])
            there = self._part.stat().st_size
        except FileNotFoundError:
            raise UsageError(f"--resume: {self._path} has not been cut off; {anew}") from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UsageError(f"--resume: {self._progress} is no record of ours; {anew}") from None
        changed = [name for name in self._origin if origin.get(name) != self._origin[name]]
        if changed:
            raise UsageError(
                f"--resume: {' and '.join(changed)} changed since {self._path} was begun; {anew}"
            )
        if there < size_bytes:
            raise UsageError(f"--resume: {self._part} is shorter than its record; {anew}")
        return rows, size_bytes

    def record_progress(self, rows: int) -> None:
        """Notes that so many rows were appended, and once in a while puts that on the disk."""
        self.rows += rows
        if time.monotonic() - self._recorded_at < _RECORD_SECONDS:
            return
        self._flush()
        record = {"rows": self.rows, "bytes": self.file.tell(), "origin": self._origin}
        with atomic_open(self._progress) as file:
            json.dump(record, file)
        self._recorded_rows = self.rows
        self._recorded_at = time.monotonic()

    def _flush(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())

    def _finish(self) -> None:
        self._flush()
        self.file.close()
        self._part.replace(self._path)
        self._progress.unlink(missing_ok=True)

    def _break_off(self, error: BaseException) -> None:
        """Keeps what can be gone on with; an input to be mended will be another input."""
        with suppress(OSError):  # what could not be written is not recorded either
            self.file.close()
        if isinstance(error, DataError) or not self._recorded_rows:
            self._part.unlink(missing_ok=True)
            self._progress.unlink(missing_ok=True)
            return
        logger.info(
            "%d rows are kept: go on with the same command and --resume", self._recorded_rows
        )


@contextmanager
def open_resumable(path: Path, origin: Mapping[str, Any], resume: bool) -> Iterator[ResumableFile]:
    """Opens a file that takes the place of `path` once it is whole.

    An error leaves the old file, and beside it what a later call can go on with; a `DataError`,
    or any error before the first record, leaves nothing more.

    Args:
        path: The file to be.
        origin: What its content follows from, fit for JSON.
        resume: Go on with what an earlier call left.

    Raises:
        UsageError: There is nothing to go on with, or it follows from something else.
    """
    partial = ResumableFile(path, origin, resume)
    try:
        yield partial
        partial._finish()
    except BaseException as error:
        partial._break_off(error)
        raise


def part_path(path: Path) -> Path:
    """Returns where a file grows."""
    return path.with_name(f"{path.name}.part")


def progress_path(path: Path) -> Path:
    """Returns where is said how far it came."""
    return path.with_name(f"{path.name}.progress")
