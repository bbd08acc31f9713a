"""The hidden folder beside a variant-to-be: what a method that was cut off goes on from."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compress.config import CompressConfig
from compress.origin import Origin
from featherweight.errors import WeightsError
from featherweight.run import CHECKPOINT, CHECKPOINTS, CONFIG, Run
from featherweight.training.run_records import as_json

FOLDER = "compressed"  # of a run: holds its variants
GO_ON = "go on with the same command"


@contextmanager
def workspace_of(origin: Origin, name: str, flags: Mapping[str, Any]) -> Iterator[Path]:
    """Yields the folder that a method goes on from.

    What other flags or other weights of the origin left there is removed. Afterwards it stays only
    if it holds a training that was cut off.

    Args:
        origin: What is compressed.
        name: Of the method.
        flags: What has to be the same to go on, fit for JSON.

    Raises:
        WeightsError: What was to go on is damaged; it is removed.
        KeyboardInterrupt: With the way to go on, where there is one.
    """
    path = origin.run.file(FOLDER) / f".{name}"
    made_from = {"flags": flags, "origin": origin.sha256}
    if path.exists() and not _same(Run(path), made_from):
        shutil.rmtree(path)
    path.mkdir(parents=True, exist_ok=True)
    Run(path).write_json(CONFIG, made_from)
    try:
        yield path
    except BaseException as error:
        if _is_damaged(path, error):
            shutil.rmtree(path)
            raise WeightsError(
                f"the training that was cut off in {path} is damaged, and was removed: "
                "give the same command again to start anew"
            ) from error
        if not Run(path).cut_off:
            shutil.rmtree(path)
        elif isinstance(error, KeyboardInterrupt) and not error.args:
            raise KeyboardInterrupt(GO_ON) from error
        raise
    shutil.rmtree(path)


def flags_of(config: CompressConfig) -> dict[str, Any]:
    """Returns every flag as JSON can hold it."""
    return {name: as_json(value) for name, value in asdict(config).items()}


def _same(workspace: Run, made_from: Mapping[str, Any]) -> bool:
    try:
        return bool(workspace.read_json(CONFIG) == made_from)
    except WeightsError:  # missing, or no JSON
        return False


def _is_damaged(path: Path, error: BaseException) -> bool:
    """Says whether an error is about what a training left, and not about a teacher's weights."""
    left = [it / name for it in (path, path.resolve()) for name in (CHECKPOINT, CHECKPOINTS)]
    return isinstance(error, WeightsError) and any(str(it) in str(error) for it in left)
