"""The whole error vocabulary: each message is one line that says what to do.

Source: the command line turns a `FeatherweightError` into that line on stderr
and the error's `exit_code`; anything else is a bug and keeps its traceback.
"""


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


class MissingExtraError(FeatherweightError):
    """A library of an optional extra is not installed."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(
            f"{library} is not installed; get it with: pip install 'featherweight[{extra}]'"
        )
