"""A data set of the Hub -> tables, through the `datasets` library and its cache."""

import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from typing import Any

from featherweight.data.formats import Record
from featherweight.data.rows import Table
from featherweight.errors import DataError, requires
from featherweight.hub.client import ANSWER_S, METADATA_S, OFFLINE, Repository, Unreachable, within

logger = logging.getLogger("featherweight")

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
    with requires("train"):
        import datasets

    repository = Repository(dataset_id, "data set", "file or folder here", _INSTEAD, DataError)
    try:
        splits = _from_hub(repository)
    except Unreachable as obstacle:
        splits = _from_cache(repository, obstacle)
    tables = {
        name: HubTable(f"{dataset_id} ({name})", split, (text_column, label_column))
        for name, split in splits.items()
    }
    features = [split.features.get(label_column) for split in splits.values()]
    class_names = [tuple(f.names) for f in features if isinstance(f, datasets.ClassLabel)]
    return tables, class_names[0] if class_names else ()


def _from_hub(repository: Repository) -> Mapping[str, Any]:
    import datasets
    from huggingface_hub import HfApi

    if datasets.config.HF_HUB_OFFLINE:  # it has a switch of its own too
        raise Unreachable(OFFLINE)
    repository.ask(lambda: HfApi().dataset_info(repository.id, timeout=ANSWER_S))
    try:
        builder = within(METADATA_S, lambda: datasets.load_dataset_builder(repository.id))
        builder.download_and_prepare()
        return builder.as_dataset()
    except FutureTimeoutError:
        raise Unreachable(f"the Hub stalls for {METADATA_S:g} s") from None
    except Exception as error:
        raise repository.failed(error) from error


def _from_cache(repository: Repository, obstacle: Unreachable) -> Mapping[str, Any]:
    import datasets

    try:
        with _offline():
            splits: Mapping[str, Any] = datasets.load_dataset(repository.id)
    except Exception as error:
        raise repository.not_cached(obstacle) from error
    logger.info(f"{obstacle}: {repository.id} is read from the cache")
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
