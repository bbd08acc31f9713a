"""A file that is written batch by batch, and can be resumed if the process is killed.

`OUT.part` is renamed to OUT when it is complete. `OUT.progress` records how many rows and bytes
of it are safely on disk, and what they were computed from; on resuming, the rest is truncated.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from featherweight.disk.atomic import atomic_open, naming
from featherweight.disk.lock import locked
from featherweight.errors import DataError, UsageError
from featherweight.prediction.bad_rows import BadRowError

logger = logging.getLogger("featherweight")

Command = Callable[..., str]

_RECORD_SECONDS = 1.0  # between two records: waiting for the disk after each batch would be slow


class ResumableFile:
    """An open `file` being written from `rows` of the input so far; see `open_resumable`."""

    def __init__(
        self, path: Path, origin: Mapping[str, Any], resume: bool, command: Command
    ) -> None:
        self._path = path
        self._command = command
        self._part, self._progress = (
            path.with_name(f"{path.name}.{kind}") for kind in ("part", "progress")
        )
        self._origin = json.loads(json.dumps(origin))
        self._recorded_at = time.monotonic()
        self.rows, size_bytes = self._read_progress() if resume else (0, 0)
        self._recorded_rows = self.rows
        if not resume:
            # Before the file is opened: the record of an earlier run must not apply to this one.
            self._progress.unlink(missing_ok=True)
        self.file: IO[bytes] = self._part.open("r+b" if resume else "wb")
        self.file.truncate(size_bytes)
        self.file.seek(size_bytes)

    def _read_progress(self) -> tuple[int, int]:
        """Returns the recorded rows and bytes."""
        restart = "run the same command without --resume to start over"
        try:
            record = json.loads(self._progress.read_text(encoding="utf-8"))
            rows, size_bytes = int(record["rows"]), int(record["bytes"])
            origin = dict(record["origin"])
            part_bytes = self._part.stat().st_size
        except FileNotFoundError:
            raise UsageError(f"--resume: {self._path} was not interrupted; {restart}") from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UsageError(
                f"--resume: {self._progress} was not written by featherweight; {restart}"
            ) from None
        # A name may be absent: it stands for an option at its default.
        names = {**self._origin, **origin}
        changed = [name for name in names if origin.get(name) != self._origin.get(name)]
        if changed:
            raise UsageError(
                f"--resume: {' and '.join(changed)} changed since {self._path} was started; "
                f"{restart}"
            )
        if part_bytes < size_bytes:
            raise UsageError(f"--resume: {self._part} is shorter than recorded; {restart}")
        return rows, size_bytes

    def record_progress(self, rows: int) -> None:
        """Counts rows whose content is appended; about once per second, records them on disk."""
        self.rows += rows
        if time.monotonic() - self._recorded_at >= _RECORD_SECONDS:
            self._record()

    def _record(self) -> None:
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

    def _interrupt(self, error: BaseException) -> None:
        """Keeps the recorded rows, unless the input is invalid: its correction is a new input."""
        bad_row = isinstance(error, BadRowError)  # which another policy continues past
        with suppress(OSError):  # bytes that could not be written are not recorded either
            if bad_row and self.rows > self._recorded_rows:
                self._record()
            self.file.close()
        if (isinstance(error, DataError) and not bad_row) or not self._recorded_rows:
            self._part.unlink(missing_ok=True)
            self._progress.unlink(missing_ok=True)
            return
        command = self._command(bad_rows="blank") if bad_row else self._command()
        logger.info("%d rows are saved; continue with: %s", self._recorded_rows, command)


@contextmanager
def open_resumable(
    path: Path, origin: Mapping[str, Any], resume: bool, command: Command
) -> Iterator[ResumableFile]:
    """Opens a file that replaces `path` once it is complete; no other process can write it.

    An error leaves the old file, and next to it the part that a later call can resume; a
    `DataError` other than a `BadRowError`, or any error before the first record, leaves no part.

    Args:
        path: The output file.
        origin: What the content is computed from, as JSON values.
        resume: Continue the part that an earlier call left.
        command: Returns the command that continues after an interruption, with other values of
            flags if they are given.

    Raises:
        UsageError: There is nothing to resume, it was computed from something else, or another
            process is writing it.
    """
    with locked(path), naming(path, path.with_name(f"{path.name}.part")):
        output = ResumableFile(path, origin, resume, command)
        try:
            yield output
            output._finish()
        except BaseException as error:
            output._interrupt(error)
            raise
