"""Shared steps of all trainings: load data, create or resume a run directory, write its log."""

import dataclasses
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from featherweight.data.checks import Findings, check, drop_leaks
from featherweight.data.dataset import DataConfig, Dataset, load_dataset
from featherweight.device import environment
from featherweight.disk.atomic import recover
from featherweight.disk.lock import locked
from featherweight.errors import NothingToDo, UsageError, quoted
from featherweight.reports.terminal import OneLineFormatter
from featherweight.run import CONFIG, Run, cut_off_runs, kind
from featherweight.training.config import OutputConfig

logger = logging.getLogger("featherweight")


def prepare_data(config: DataConfig) -> tuple[Dataset, Findings]:
    """Loads the data, logs the findings of the checks, and drops leaks if requested.

    Raises:
        DataError: The data is not usable.
    """
    dataset = load_dataset(config)
    findings = check(dataset)
    for line in findings.lines():
        logger.warning("%s", line)
    if config.drop_leaks:
        dataset, same, alike = drop_leaks(dataset)
        logger.info(
            "%d texts were dropped from the training split, %d of them in other spelling",
            same + alike, alike,
        )  # fmt: skip
    return dataset, findings


def first_records(config: OutputConfig, dataset: Dataset, findings: Findings) -> dict[str, Any]:
    """Returns the JSON files of a new run, by name."""
    return {
        CONFIG: resolved(config),
        "labels.json": dataset.labels,
        "data.json": dataset.identity() | {"findings": findings.to_json()},
        "environment.json": environment(),
    }


def resolved(config: OutputConfig) -> dict[str, Any]:
    """Returns the kind and all fields of a config as JSON values, with absolute paths."""
    values = dataclasses.asdict(config)
    if Path(values["data"]).exists():
        values["data"] = Path(values["data"])
    return {"kind": config.kind} | {name: as_json(value) for name, value in values.items()}


def as_json(value: Any) -> Any:
    """Returns the value of a flag as a JSON value; paths become absolute."""
    if isinstance(value, Path):
        return str(value.resolve())
    return [as_json(item) for item in value] if isinstance(value, list | tuple) else value


@contextmanager
def written_run(
    config: OutputConfig, dataset: Dataset, name: str, new_records: Callable[[], Mapping[str, Any]]
) -> Iterator[Run]:
    """Yields the run to train, new or interrupted; no other process can write it meanwhile.

    With --overwrite it replaces the old run only when the context ends without an error.

    Args:
        config: Whether to resume or to overwrite.
        dataset: The data; that of an interrupted run must be the same.
        name: Name of a new run.
        new_records: Makes the JSON files of a new run, by name, before anything is written.

    Raises:
        UsageError: The run exists, cannot be resumed, or is being written by another process.
        NothingToDo: The run to resume is finished.
        KeyboardInterrupt: With the way to resume.
    """
    found = cut_off_run(config, dataset) if config.resume else None
    records = {} if found else new_records()
    with locked(found.final if found else config.output_dir / name):
        if found and found.finished:  # meanwhile, or killed before it took its place
            found.take_place()
            raise NothingToDo(f"{found.path} is finished: nothing to resume")
        run = found or Run.create(config.output_dir, name, config.overwrite, records)
        try:
            yield run
        except BaseException as error:
            if not (found or run.cut_off or run.finished):  # there is nothing to resume from
                shutil.rmtree(run.path, ignore_errors=True)
            if not isinstance(error, KeyboardInterrupt):
                raise
            if not run.path.exists():
                raise KeyboardInterrupt("no run was written") from error
            old = f"; {run.final} is still the old run" if run.path != run.final else ""
            instead = "--resume instead of --overwrite" if config.overwrite else "--resume"
            raise KeyboardInterrupt(
                f"to continue, give the same flags, --name {run.final.name} and {instead}{old}"
            ) from error
        run.take_place()


def cut_off_run(config: OutputConfig, dataset: Dataset) -> Run | None:
    """Returns the interrupted run to resume, or None if a run with this name does not exist.

    Raises:
        UsageError: There is nothing to resume, or flags or data have changed.
        NothingToDo: The run with this name is finished.
    """
    if config.name:
        path = config.output_dir / config.name
        recover(path)
        run = Run(path)
        if run.replacement.file(CONFIG).exists():
            run = run.replacement
        if not run.file(CONFIG).exists():
            return None
        if run.finished and run.path == run.final:
            raise NothingToDo(f"{run.path} is finished: nothing to resume")
    else:
        unfinished = cut_off_runs(config.output_dir)
        candidates = [run for run in unfinished if kind(run.read_json(CONFIG)) == config.kind]
        if not candidates:
            raise UsageError(f"no run in {config.output_dir} was cut off: nothing to resume")
        run = candidates[-1]
    _check_flags(run, config)
    if run.read_json("data.json")["splits"] != dataset.identity()["splits"]:
        raise UsageError(f"the data of {run.path} has changed: train again under another --name")
    return run


def _check_flags(run: Run, config: OutputConfig) -> None:
    saved = {**config.before, **run.read_json(CONFIG)}
    # Runs of version 0.1 do not record their kind.
    unchecked = {"kind", *(field.name for field in dataclasses.fields(OutputConfig))}
    for flag, value in resolved(config).items():
        if flag not in unchecked and saved.get(flag) != value:
            raise UsageError(
                f"{run.path} was started with --{flag} {quoted(saved.get(flag))}, not "
                f"{quoted(value)}: "
                "resume with the same flags"
            )


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """Appends the log to a file while the context lasts."""
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(OneLineFormatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
