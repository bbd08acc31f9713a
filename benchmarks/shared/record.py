"""Common parts of the benchmark programs: command line, evaluation, and the record they write."""

import json
import logging
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from featherweight.classifier import Classifier
from featherweight.comparison import plots
from featherweight.data.dataset import DataConfig, Dataset
from featherweight.device import environment
from featherweight.disk.atomic import atomic_open
from featherweight.quality.evaluation import evaluate
from featherweight.reports.terminal import standard_streams

RESULTS = Path(__file__).parents[2] / "results"


def run(program: Callable[..., None]) -> None:
    """Runs a benchmark with its parameters as flags, and logs to the terminal.

    Args:
        program: Its first parameter, `source`, is made from --data and --labels.
    """
    with standard_streams():
        _run(program)


def _run(program: Callable[..., None]) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = ArgumentParser()
    parser.add_argument("--config", action="config", help="YAML file of flags")
    parser.add_argument("--data", required=True, help="Hub id, folder or file")
    parser.add_argument("--labels", default="", help="names of integer labels, in id order")
    parser.add_function_arguments(program, skip={"source"})
    flags = parser.parse_args().as_dict()
    del flags["config"]
    program(DataConfig(data=flags.pop("data"), labels=flags.pop("labels")), **flags)


def evaluations(classifier: Classifier, dataset: Dataset) -> dict[str, Any]:
    """Returns the evaluations on validation and test, and prints their macro-F1."""
    splits = (dataset.validation, dataset.split("test"))
    found = {split.name: evaluate(classifier, split, dataset.name).to_json() for split in splits}
    print(classifier.name, {name: scores["macro_f1"] for name, scores in found.items()})
    return found


def write_record(name: str, data: dict[str, Any], values: dict[str, Any]) -> None:
    """Writes results/NAME.json atomically: the values with command, data and machine."""
    record = {
        "command": shlex.join(["python", *sys.argv]),
        "data": data,
        "environment": environment(),
        **values,
    }
    path = RESULTS / f"{name}.json"
    with atomic_open(path) as file:
        file.write(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    print(path)


def write_comparison(
    name: str, picture: str, dataset: Dataset, comparison: dict[str, Any], **values: Any
) -> None:
    """Writes results/NAME.json with a comparison and further values, and results/PICTURE.png."""
    with atomic_open(RESULTS / f"{picture}.png", "wb") as file:
        file.write(plots.trade_off(comparison))
    # `write_record` adds the command and the machine of the benchmark.
    del comparison["command"], comparison["environment"]
    write_record(name, dataset.identity(), {"comparison": comparison, **values})


def read_record(name: str) -> dict[str, Any]:
    """Reads results/NAME.json."""
    record: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return record
