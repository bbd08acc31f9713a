"""Shared steps of all trainings: load data, create or resume a run directory, write its log."""

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from featherweight.data.checks import Findings, check, drop_leaks
from featherweight.data.dataset import DataConfig, Dataset, load_dataset
from featherweight.device import environment
from featherweight.errors import UsageError
from featherweight.run import CONFIG, Run, kind, runs
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
        dataset, dropped = drop_leaks(dataset)
        logger.info("%d texts were dropped from the training split", dropped)
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


def cut_off_run(config: OutputConfig, dataset: Dataset) -> Run | None:
    """Returns the interrupted run to resume, or None if a run with this name does not exist.

    Raises:
        UsageError: There is nothing to resume, or flags or data have changed.
    """
    if config.name:
        run = Run(config.output_dir / config.name)
        if not run.file(CONFIG).exists():
            return None
        if run.finished:
            raise UsageError(f"{run.path} is finished: nothing to resume")
    else:
        unfinished = [run for run in runs(config.output_dir) if not run.finished]
        candidates = [run for run in unfinished if kind(run.read_json(CONFIG)) == config.kind]
        if not candidates:
            raise UsageError(f"no run in {config.output_dir} was cut off: nothing to resume")
        run = candidates[-1]
    _check_flags(run, config)
    if run.read_json("data.json")["splits"] != dataset.identity()["splits"]:
        raise UsageError(f"the data of {run.path} has changed: train again under another --name")
    return run


def _check_flags(run: Run, config: OutputConfig) -> None:
    saved = run.read_json(CONFIG)
    # Runs of version 0.1 do not record their kind.
    unchecked = {"kind", *(field.name for field in dataclasses.fields(OutputConfig))}
    for flag, value in resolved(config).items():
        if flag not in unchecked and saved.get(flag) != value:
            raise UsageError(
                f"{run.path} was started with --{flag} {saved.get(flag)}, not {value}: "
                "resume with the same flags"
            )


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """Appends the log to a file while the context lasts."""
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
