"""Errors for users: each message is one line that says what to do.

The command line prints the message of a `FeatherweightError` on stderr and exits with its
`exit_code`. Any other exception is a bug and keeps its traceback.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_MAX_QUOTED = 120  # characters of input in a message, which shall fit on a screen
_MAX_REASON = 400  # characters of a library's message

_RANGES: Mapping[str, Callable[[float], bool]] = {  # NaN is outside all of them
    "at least 1": lambda value: value >= 1,
    "above 0": lambda value: 0 < value < math.inf,
    "0 or above": lambda value: 0 <= value < math.inf,
    "in [0, 1)": lambda value: 0 <= value < 1,
    "in [0, 1]": lambda value: 0 <= value <= 1,
    "in [0, 2**32)": lambda value: 0 <= value < 2**32,
    "in [0, 65535]": lambda value: 0 <= value <= 65_535,
}


class FeatherweightError(Exception):
    """An error that the user can understand and fix."""

    exit_code = 1


class UsageError(FeatherweightError):
    """Flags that contradict each other or name something that does not exist."""

    exit_code = 2


class NothingToDo(FeatherweightError):
    """What was asked for has been done before."""

    exit_code = 0


class DataError(FeatherweightError):
    """A data set, file or row that is not usable."""

    exit_code = 2


class WeightsError(FeatherweightError):
    """Weights that are missing, truncated, altered or not written by featherweight."""

    exit_code = 2


class CheckpointError(WeightsError):
    """The saved state of an interrupted training is damaged or belongs to another model.

    Attributes:
        path: The file or folder that cannot be read.
    """

    def __init__(self, path: Path, reason: BaseException) -> None:
        super().__init__(
            f"{path} cannot be resumed ({first_line(reason)}): train again with --overwrite"
        )
        self.path = path


class MissingExtraError(FeatherweightError):
    """A library of an optional extra is not installed."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(
            f"{library} is not installed; get it with: pip install 'featherweight[{extra}]'"
        )


@contextmanager
def requires(extra: str) -> Iterator[None]:
    """Turns a failed import inside the context into an error that names the extra to install.

    Raises:
        MissingExtraError: A library is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or extra).partition(".")[0]
        raise MissingExtraError(library, extra) from None


def shortened(text: str, max_length: int = _MAX_QUOTED) -> str:
    """Returns a text for a message: only its start and its end if it is long."""
    if len(text) <= max_length:
        return text
    end = (max_length - 1) // 2
    return f"{text[: max_length - 1 - end]}…{text[-end:]}"


def quoted(value: object) -> str:
    """Returns a value of the input for a message: in quotes, escaped and shortened."""
    return shortened(repr(value))


def first_line(error: BaseException) -> str:
    """Returns the first nonempty line of an error message, or the error type if there is none."""
    lines = filter(None, map(str.strip, str(error).splitlines()))
    return shortened(next(lines, type(error).__name__), _MAX_REASON)


def require_range(config: Any, allowed: str, *flags: str) -> None:
    """Raises a UsageError for flags whose value is outside a range, one of `_RANGES`."""
    for flag in flags:
        value = getattr(config, flag)
        if not _RANGES[allowed](value):
            raise UsageError(f"--{flag} must be {allowed}, not {shortened(str(value))}")
