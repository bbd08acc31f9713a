"""The hidden folder in which a method keeps its state, so that it can be resumed."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compress.config import CompressConfig
from compress.origin import Origin
from featherweight.disk.lock import locked
from featherweight.errors import CheckpointError, WeightsError
from featherweight.run import CONFIG, Run
from featherweight.training.run_records import as_json

FOLDER = "compressed"  # folder of a run that holds its variants
RESUME = "run the same command again to resume"


@contextmanager
def workspace_of(origin: Origin, name: str, flags: Mapping[str, Any]) -> Iterator[Path]:
    """Yields the folder from which a method resumes.

    State of the method `name` that belongs to other flags or other weights of the origin is removed
    first. Afterwards the folder is removed unless it holds an interrupted training.

    Raises:
        UsageError: Another process is making the same variant.
        WeightsError: The state to resume from is damaged; it is removed.
        KeyboardInterrupt: With the way to resume, if there is a state to resume from.
    """
    folder = origin.run.file(FOLDER)
    with locked(folder / name):
        yield from _prepared(folder / f".{name}", {"flags": flags, "origin": origin.sha256})


def _prepared(path: Path, record: Mapping[str, Any]) -> Iterator[Path]:
    """Yields the folder after removing the state of other flags or weights."""
    if path.exists() and not _equals(Run(path), record):
        shutil.rmtree(path)
    path.mkdir(parents=True, exist_ok=True)
    Run(path).write_json(CONFIG, record)
    try:
        yield path
    except CheckpointError as error:
        shutil.rmtree(path)
        raise WeightsError(
            f"the interrupted training in {path} was damaged and has been removed: "
            "run the same command again to start over"
        ) from error
    except BaseException as error:
        if not Run(path).cut_off:
            shutil.rmtree(path)
        elif isinstance(error, KeyboardInterrupt) and not error.args:
            raise KeyboardInterrupt(RESUME) from error
        raise
    shutil.rmtree(path)


def flags_of(config: CompressConfig) -> dict[str, Any]:
    """Returns every flag in a form fit for JSON."""
    return {name: as_json(value) for name, value in asdict(config).items()}


def _equals(workspace: Run, record: Mapping[str, Any]) -> bool:
    try:
        return bool(workspace.read_json(CONFIG) == record)
    except WeightsError:  # missing or not JSON
        return False
