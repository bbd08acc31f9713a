"""What every training does around its loop: data, a new or resumed run directory, its log."""

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from featherweight.data.checks import Findings, check, drop_leaks
from featherweight.data.dataset import DataConfig, Dataset, load_dataset
from featherweight.device import environment
from featherweight.errors import UsageError
from featherweight.run import CONFIG, Run, runs
from featherweight.training.config import OutputConfig

logger = logging.getLogger("featherweight")


def prepare_data(config: DataConfig) -> tuple[Dataset, Findings]:
    """Loads the data, says what the checks find in it, and drops leaks if that is asked.

    Raises:
        DataError: It cannot be used.
    """
    dataset = load_dataset(config)
    findings = check(dataset)
    for line in findings.lines():
        logger.warning("%s", line)
    if config.drop_leaks:
        dataset, dropped = drop_leaks(dataset)
        logger.info("%d texts were dropped from train", dropped)
    return dataset, findings


def first_records(config: OutputConfig, dataset: Dataset, findings: Findings) -> dict[str, Any]:
    """Returns the JSON files that a run has from its start."""
    return {
        CONFIG: resolved(config),
        "labels.json": dataset.labels,
        "data.json": dataset.identity() | {"findings": findings.to_json()},
        "environment.json": environment(),
    }


def resolved(config: OutputConfig) -> dict[str, Any]:
    """Every field as JSON; paths absolute, so that the data is found from anywhere."""
    values = dataclasses.asdict(config)
    if Path(values["data"]).exists():
        values["data"] = Path(values["data"])
    return {name: as_json(value) for name, value in values.items()}


def as_json(value: Any) -> Any:
    """Returns a flag's value as JSON can hold it; paths absolute."""
    if isinstance(value, Path):
        return str(value.resolve())
    return [as_json(item) for item in value] if isinstance(value, list | tuple) else value


def cut_off_run(config: OutputConfig, dataset: Dataset) -> Run | None:
    """Finds the run that was cut off, or None where it was cut off before there was one.

    Raises:
        UsageError: Nothing to resume, or other flags or data than then.
    """
    now = resolved(config)
    if config.name:
        run = Run(config.output_dir / config.name)
        if not run.file(CONFIG).exists():
            return None
        if run.finished:
            raise UsageError(f"{run.path} is finished: nothing to resume")
    else:
        unfinished = [run for run in runs(config.output_dir) if not run.finished]
        # A folder may hold cut-off runs of another verb.
        candidates = [run for run in unfinished if run.read_json(CONFIG).keys() == now.keys()]
        if not candidates:
            raise UsageError(f"no run in {config.output_dir} was cut off: nothing to resume")
        run = candidates[-1]
    _refuse_changes(run, run.read_json(CONFIG), now)
    if run.read_json("data.json")["splits"] != dataset.identity()["splits"]:
        raise UsageError(f"the data of {run.path} has changed: train anew under another --name")
    return run


def _refuse_changes(run: Run, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for field in now.keys() - {field.name for field in dataclasses.fields(OutputConfig)}:
        if saved.get(field) != now[field]:
            raise UsageError(
                f"{run.path} was started with --{field} {saved.get(field)}, not {now[field]}: "
                "resume with the same flags"
            )


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """Copies the log into a file, going on where a cut-off training left it."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
