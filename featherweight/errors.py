"""Every error a user can meet: each message is one line that says what to do.

The command line prints a `FeatherweightError` as that line on stderr and exits with its
`exit_code`; anything else is a bug and keeps its traceback.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FeatherweightError(Exception):
    """A failure that the user can understand and mend."""

    exit_code = 1


class UsageError(FeatherweightError):
    """Flags that do not fit together or name something that is not there."""

    exit_code = 2


class DataError(FeatherweightError):
    """A data set, file or row that cannot be used as it is."""

    exit_code = 2


class WeightsError(FeatherweightError):
    """Weights that are missing, truncated, altered or foreign."""

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
    """Names the optional extra to install where an import inside finds a library missing.

    Raises:
        MissingExtraError: A library is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or extra).partition(".")[0]
        raise MissingExtraError(library, extra) from None


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or its type where it has none."""
    return next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)
