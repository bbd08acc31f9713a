"""Names of the columns that `predict` adds to those of its input."""

import logging
from collections.abc import Collection, Iterable
from itertools import chain, count

from featherweight.data.rows import listing
from featherweight.errors import UsageError, quoted, shortened
from featherweight.prediction.cells import is_formula
from featherweight.reports.terminal import controls_terminal

logger = logging.getLogger("featherweight")

# Source: Ekman (1992), An Argument for Basic Emotions; Demszky et al. (2020), GoEmotions, which
# also contains the six of the default task.
_EMOTIONS = frozenset({
    "admiration", "amusement", "anger", "annoyance", "approval", "caring", "confusion",
    "curiosity", "desire", "disappointment", "disapproval", "disgust", "embarrassment",
    "excitement", "fear", "gratitude", "grief", "happiness", "joy", "love", "nervousness",
    "neutral", "optimism", "pride", "realization", "relief", "remorse", "sadness", "surprise",
})  # fmt: skip


def name_column(labels: Iterable[str]) -> str:
    """Returns the column of a label's name: "emotion" if all labels are emotions, or "name"."""
    return "emotion" if all(label.lower() in _EMOTIONS for label in labels) else "name"


def prediction_columns(labels: Iterable[str], known_words: bool = False) -> tuple[str, ...]:
    """Returns the columns of class id, label name, confidence and, if asked for, known words."""
    columns = ("predicted_label", f"predicted_{name_column(labels)}", "confidence")
    return (*columns, "known_words") if known_words else columns


def free_columns(
    columns: Iterable[str], taken: Collection[str], prefix: str, source: str
) -> tuple[str, ...]:
    """Returns names for the prediction columns that no column of the input has.

    Without a prefix, a taken name gets a number: `confidence_2`; one log line says so.

    Args:
        columns: The names as `prediction_columns` returns them.
        taken: The columns of the input.
        prefix: Put before each name; may be empty.
        source: The input, for messages.

    Raises:
        UsageError: With the prefix, a name is that of a column of the input; or a spreadsheet would
            execute the name.
    """
    wanted = [f"{prefix}{column}" for column in columns]
    if is_formula(wanted[0]) or controls_terminal(prefix):
        raise UsageError(
            f"--answer_prefix {quoted(prefix)}: a spreadsheet may execute a column name that "
            "starts with it: choose another"
        )
    clashes = [column for column in wanted if column in taken]
    if not clashes:
        return tuple(wanted)
    if prefix:
        raise UsageError(
            f"--answer_prefix {shortened(prefix)}: {source} already has {listing(clashes)}: choose "
            "another"
        )
    free = [first_free(column, taken) for column in wanted]
    renamed = listing(column for column in free if column not in wanted)
    logger.info("%s already has %s: what is predicted is in %s", source, listing(clashes), renamed)
    return tuple(free)


def first_free(column: str, taken: Collection[str]) -> str:
    """Returns a name, with the first number from 2 that makes it free if it is taken."""
    numbered = (f"{column}_{number}" for number in count(2))
    return next(name for name in chain([column], numbered) if name not in taken)
