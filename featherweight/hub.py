"""A data set of the Hugging Face Hub -> tables, through the `datasets` library and its cache."""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from featherweight.errors import DataError, MissingExtraError
from featherweight.formats import Record
from featherweight.rows import Table

logger = logging.getLogger("featherweight")

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
PATIENCE_S = 8.0  # seconds without an answer after which the Hub counts as unreachable
_BATCH_ROWS = 1000
_INSTEAD = (
    "give --data a folder or a file, or --data bundled; "
    "what was fetched before is read from the cache"
)


class HubTable:
    """The rows of one split.

    Attributes:
        columns: Names of the columns.
    """

    def __init__(self, title: str, split: Any, wanted: tuple[str, ...]) -> None:
        self.columns: tuple[str, ...] = tuple(split.column_names)
        self._title = title
        # The others may be images or audio, which are slow to decode or cannot be.
        self._split = split.select_columns([name for name in self.columns if name in wanted])

    def __str__(self) -> str:
        return self._title

    def __iter__(self) -> Iterator[Record]:
        """Yields (row from 1, values of the wanted columns)."""
        number = 0
        for batch in self._split.iter(batch_size=_BATCH_ROWS):
            for values in zip(*batch.values(), strict=True):
                number += 1
                yield number, dict(zip(batch, values, strict=True))

    def place(self, number: int) -> str:
        """Returns what an error message calls a row, such as "dair-ai/emotion (test), row 17"."""
        return f"{self}, row {number}"


def load_hub(
    dataset_id: str, text_column: str, label_column: str
) -> tuple[Mapping[str, Table], tuple[str, ...]]:
    """Loads a data set, from the cache where the Hub cannot be reached.

    HF_ENDPOINT, HF_HUB_OFFLINE, the cache's place (HF_HOME) and a login are honoured.

    Args:
        dataset_id: Such as "dair-ai/emotion".
        text_column: Name of the column of texts.
        label_column: Name of the column of labels, whose class names are looked up.

    Returns:
        A table for each split, and the class names in id order, empty if it has none.

    Raises:
        DataError: There is no such data set, it asks for a login, or neither the Hub nor
            the cache can give it.
        MissingExtraError: `datasets` is not installed.
    """
    try:
        import datasets
    except ModuleNotFoundError:
        raise MissingExtraError("datasets", "train") from None

    offline = "HF_HUB_OFFLINE is set" if datasets.config.HF_HUB_OFFLINE else ""
    obstacle = offline or _ask_hub(dataset_id)
    splits = _from_cache(dataset_id, obstacle) if obstacle else _from_hub(dataset_id)
    tables = {
        name: HubTable(f"{dataset_id} ({name})", split, (text_column, label_column))
        for name, split in splits.items()
    }
    features = [split.features.get(label_column) for split in splits.values()]
    class_names = [tuple(f.names) for f in features if isinstance(f, datasets.ClassLabel)]
    return tables, class_names[0] if class_names else ()


def _ask_hub(dataset_id: str) -> str:
    """Asks for the data set once; returns what stands in the way, or "" if nothing does."""
    import datasets
    from huggingface_hub import HfApi

    answers: list[Exception | None] = []

    def ask() -> None:
        try:
            HfApi(endpoint=datasets.config.HF_ENDPOINT).dataset_info(dataset_id, timeout=PATIENCE_S)
        except Exception as error:  # whatever the transport raises: see below
            answers.append(error)
        else:
            answers.append(None)

    # A thread, because the time limit of a request covers neither the look-up of a name nor
    # the attempts at a host's other addresses; and the library itself retries for minutes.
    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    host = urlsplit(datasets.config.HF_ENDPOINT).hostname
    if not answers:
        return f"{host} does not answer within {PATIENCE_S:g} s"
    if answers[0] is None:
        return ""
    status = getattr(getattr(answers[0], "response", None), "status_code", None)
    if status == 404:
        raise DataError(
            f"there is neither a file or folder {dataset_id} nor such a data set on the Hub: "
            "check the spelling"
        )
    if status in (401, 403):
        raise _login(dataset_id)
    why = f"it answers {status}" if status else type(answers[0]).__name__
    return f"{host} cannot be reached ({why})"


def _login(dataset_id: str) -> DataError:
    # The Hub answers 401 for what does not exist as well as for what is private.
    return DataError(
        f"the Hub does not give {dataset_id} to you: check the spelling; if it is private or "
        "gated, ask for access on its page and log in with: hf auth login"
    )


def _from_hub(dataset_id: str) -> Mapping[str, Any]:
    import datasets

    try:
        return datasets.load_dataset(dataset_id)  # type: ignore[no-any-return]
    except datasets.exceptions.DatasetNotFoundError:
        raise _login(dataset_id) from None
    except Exception as error:  # each file format and transport brings its own kinds
        raise DataError(
            f"{dataset_id} cannot be loaded from the Hub ({_brief(error)}): {_INSTEAD}"
        ) from error


def _from_cache(dataset_id: str, obstacle: str) -> Mapping[str, Any]:
    import datasets

    try:
        with _offline():
            splits: Mapping[str, Any] = datasets.load_dataset(dataset_id)
    except Exception as error:
        raise DataError(
            f"no file or folder {dataset_id} here, and as a Hub data set it is not in the cache "
            f"while {obstacle}: {_INSTEAD}"
        ) from error
    logger.info(f"{obstacle}: {dataset_id} is read from the cache")
    return splits


@contextmanager
def _offline() -> Iterator[None]:
    """Keeps the libraries off the network; they read HF_HUB_OFFLINE at import, long ago."""
    import datasets
    import huggingface_hub

    before = datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE = before


def _brief(error: Exception) -> str:
    """Returns the kind and the first line of an error, without the token that it might quote."""
    from huggingface_hub import get_token

    line = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    token = get_token()
    return line.replace(token, "***") if token else line
