"""Data sets of the Hub -> tables, through the `datasets` library and its cache."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from featherweight.data.formats import Record
from featherweight.data.rows import Table
from featherweight.errors import DataError, requires
from featherweight.hub.client import ANSWER_S, METADATA_S, OFFLINE, Repository, Unreachable, within

logger = logging.getLogger("featherweight")

_BATCH_ROWS = 1000
_INSTEAD = (
    "give --data a folder or a file, or use --data bundled; "
    "earlier downloads are read from the cache"
)


class HubTable(Table):
    """The rows of one split, named such as "dair-ai/emotion (test)"."""

    def __init__(self, title: str, split: Any, wanted: tuple[str, ...]) -> None:
        self.columns = tuple(split.column_names)
        self._title = title
        # Other columns may be images or audio, which are slow or impossible to decode.
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


def load_hub(
    dataset_id: str, text_column: str, label_column: str
) -> tuple[Mapping[str, Table], tuple[str, ...]]:
    """Loads a data set, from the cache if the Hub cannot be reached.

    Respects HF_ENDPOINT, HF_HUB_OFFLINE, the cache location (HF_HOME) and a login.

    Args:
        dataset_id: Such as "dair-ai/emotion".
        text_column: Column of the texts.
        label_column: Column of the labels, whose class names are looked up.

    Returns:
        A table for each split, and the class names in id order, empty if there are none.

    Raises:
        DataError: There is no such data set, it requires a login, or it is available neither
            from the Hub nor from the cache.
        MissingExtraError: `datasets` is not installed.
    """
    with requires("train"):
        import datasets

    repository = Repository(dataset_id, "data set", "local file or folder", _INSTEAD, DataError)
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

    if datasets.config.HF_HUB_OFFLINE:  # the library has its own switch
        raise Unreachable(OFFLINE)
    repository.request(lambda: HfApi().dataset_info(repository.id, timeout=ANSWER_S))
    try:
        builder = within(METADATA_S, lambda: datasets.load_dataset_builder(repository.id))
        builder.download_and_prepare()
        return builder.as_dataset()
    except Unreachable:
        raise
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
    """Keeps the libraries offline; they read HF_HUB_OFFLINE only when they are imported."""
    import datasets
    import huggingface_hub

    before = datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE = before
