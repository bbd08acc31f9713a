"""A data set of the Hugging Face Hub -> tables, through the `datasets` library and its cache."""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from threading import Thread
from typing import Any, TypeVar
from urllib.parse import urlsplit

from featherweight.errors import DataError, MissingExtraError
from featherweight.formats import Record
from featherweight.rows import Table

logger = logging.getLogger("featherweight")
T = TypeVar("T")

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
ANSWER_S = 8.0  # seconds until a Hub without an answer counts as unreachable
METADATA_S = 30.0  # seconds for the ten or so small requests before a download
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

    obstacle = "HF_HUB_OFFLINE is set" if datasets.config.HF_HUB_OFFLINE else _ask(dataset_id)
    splits: Mapping[str, Any] = {}
    if not obstacle:
        try:
            splits = _from_hub(dataset_id)
        except FutureTimeoutError:
            obstacle = f"the Hub stalls for {METADATA_S:g} s"
    if obstacle:
        splits = _from_cache(dataset_id, obstacle)
    tables = {
        name: HubTable(f"{dataset_id} ({name})", split, (text_column, label_column))
        for name, split in splits.items()
    }
    features = [split.features.get(label_column) for split in splits.values()]
    class_names = [tuple(f.names) for f in features if isinstance(f, datasets.ClassLabel)]
    return tables, class_names[0] if class_names else ()


def _ask(dataset_id: str) -> str:
    """Asks the Hub once for the data set; returns what stands in the way, "" if nothing does."""
    import datasets
    from huggingface_hub import HfApi

    endpoint = datasets.config.HF_ENDPOINT
    host = urlsplit(endpoint).hostname  # without the user and password that a URL may hold
    try:
        _within(ANSWER_S, lambda: HfApi(endpoint).dataset_info(dataset_id, timeout=ANSWER_S))
    except FutureTimeoutError:
        return f"{host} does not answer within {ANSWER_S:g} s"
    except Exception as error:  # every transport has its own kinds, and a proxy answers anything
        status = _status(error)
        if status == 404:
            raise DataError(
                f"{dataset_id} is neither a file or folder here nor a data set of the Hub: "
                "check the spelling"
            ) from None
        if status in (401, 403):
            raise _refused(dataset_id) from None
        why = f"it answers {status}" if status else type(error).__name__
        return f"{host} cannot be reached ({why})"
    return ""


def _from_hub(dataset_id: str) -> Mapping[str, Any]:
    import datasets

    try:
        builder = _within(METADATA_S, lambda: datasets.load_dataset_builder(dataset_id))
        builder.download_and_prepare()
        return builder.as_dataset()
    except FutureTimeoutError:
        raise
    except Exception as error:
        raise _failed(dataset_id, error) from error


def _from_cache(dataset_id: str, obstacle: str) -> Mapping[str, Any]:
    import datasets

    try:
        with _offline():
            splits: Mapping[str, Any] = datasets.load_dataset(dataset_id)
    except Exception as error:
        raise DataError(
            f"{dataset_id} is no file or folder here, and as a data set of the Hub it is not in "
            f"the cache, while {obstacle}: {_INSTEAD}"
        ) from error
    logger.info(f"{obstacle}: {dataset_id} is read from the cache")
    return splits


def _within(seconds: float, call: Callable[[], T]) -> T:
    """Calls in a thread of its own and waits for it so long.

    The libraries wait and retry for minutes, and the time limit that they take covers neither
    the look-up of a name nor the attempts at a host's other addresses.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future.result(seconds)


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


def _refused(dataset_id: str) -> DataError:
    # The Hub answers 401 for what does not exist as well as for what is private.
    return DataError(
        f"the Hub does not give {dataset_id} to you: check the spelling; if it is private or "
        "gated, ask for access on its page and log in with: hf auth login"
    )


def _failed(dataset_id: str, error: Exception) -> DataError:
    from huggingface_hub import get_token

    status = _status(error)
    if status in (401, 403):  # the files may be gated where the page is not
        return _refused(dataset_id)
    # The message of an HTTP error is left out: it may quote a URL that is signed.
    why = f"it answers {status}" if status else f"{type(error).__name__}: {error}".splitlines()[0]
    token = get_token()
    why = why.replace(token, "***") if token else why
    return DataError(f"{dataset_id} cannot be loaded from the Hub ({why}): {_INSTEAD}")


def _status(error: BaseException | None) -> int | None:
    """Returns the HTTP status of an error or of what it was raised from."""
    while error is not None:
        status: int | None = getattr(getattr(error, "response", None), "status_code", None)
        if status is not None:
            return status
        error = error.__cause__ or error.__context__
    return None
