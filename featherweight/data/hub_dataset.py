"""Data sets of the Hub -> tables, through the `datasets` library and its cache."""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from featherweight.data.examples import SPLIT_COLUMN
from featherweight.data.files.formats import Record
from featherweight.data.rows import Table, listing
from featherweight.errors import DataError, requires
from featherweight.hub.client import (
    ANSWER_S,
    HUB_ID,
    METADATA_S,
    OFFLINE,
    Repository,
    Unreachable,
    within,
)

logger = logging.getLogger("featherweight")

# owner/name, optionally :configuration and @revision
HUB_DATA = re.compile(rf"({HUB_ID.pattern})(?::([\w.-]+))?(?:@([\w./-]+))?")
_BATCH_ROWS = 1000
_INSTEAD = (
    "give --data a folder or a file, or use --data bundled; "
    "earlier downloads are read from the cache"
)


class HubTable(Table):
    """The rows of one split, named such as "dair-ai/emotion (test)"."""

    def __init__(self, title: str, split: Any, wanted: tuple[str, ...]) -> None:
        import datasets

        self.columns = tuple(split.column_names)
        self.class_names = {
            column: tuple(feature.names)
            for column, feature in split.features.items()
            if isinstance(feature, datasets.ClassLabel)
        }
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


def load_hub(data: str, text_column: str, label_column: str) -> tuple[Mapping[str, HubTable], str]:
    """Loads a data set, from the cache if the Hub cannot be reached.

    Respects HF_ENDPOINT, HF_HUB_OFFLINE, the cache location (HF_HOME) and a login.

    Args:
        data: Such as "dair-ai/emotion" or "dair-ai/emotion:split@main".
        text_column: Column of the texts.
        label_column: Column of the labels.

    Returns:
        A table for each split, and the commit of the data set, "" if it is from the cache.

    Raises:
        DataError: There is no such data set, configuration or revision, it requires a login, or
            it is available neither from the Hub nor from the cache.
        MissingExtraError: `datasets` is not installed.
    """
    with requires("train"):
        import datasets  # noqa: F401
    match = HUB_DATA.fullmatch(data)
    assert match
    dataset_id, configuration, revision = match.groups()
    repository = Repository(dataset_id, "data set", "local file or folder", _INSTEAD, DataError)
    try:
        splits, commit = _from_hub(repository, configuration, revision)
    except Unreachable as obstacle:
        splits, commit = _from_cache(repository, configuration, revision, obstacle), ""
    tables = {
        name: HubTable(f"{data} ({name})", split, (text_column, label_column, SPLIT_COLUMN))
        for name, split in splits.items()
    }
    return tables, commit


def _from_hub(
    repository: Repository, configuration: str | None, revision: str | None
) -> tuple[Mapping[str, Any], str]:
    import datasets
    from huggingface_hub import HfApi

    if datasets.config.HF_HUB_OFFLINE:  # the library has its own switch
        raise Unreachable(OFFLINE)
    facts = repository.request(
        lambda: HfApi().dataset_info(repository.id, revision=revision, timeout=ANSWER_S)
    )
    try:
        builder = within(
            METADATA_S,
            lambda: datasets.load_dataset_builder(repository.id, configuration, revision=revision),
        )
        builder.download_and_prepare()
        return builder.as_dataset(), facts.sha or ""
    except Unreachable:
        raise
    except Exception as error:
        names = _configurations(repository.id, revision)
        if configuration not in names and len(names) > 1:
            raise DataError(
                f"{repository.id} has several configurations: give one of "
                + listing(f"{repository.id}:{name}" for name in names)
            ) from None
        raise repository.failed(error) from error


def _configurations(dataset_id: str, revision: str | None) -> list[str]:
    import datasets

    try:
        return list(datasets.get_dataset_config_names(dataset_id, revision=revision))
    except Exception:  # the error that led here is the one to report
        return []


def _from_cache(
    repository: Repository, configuration: str | None, revision: str | None, obstacle: Unreachable
) -> Mapping[str, Any]:
    import datasets

    try:
        with _offline():
            splits: Mapping[str, Any] = datasets.load_dataset(
                repository.id, configuration, revision=revision
            )
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
