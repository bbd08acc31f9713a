"""`compare`: evaluates any models on the same texts in one run, and times them in turns."""

import dataclasses
import json
import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featherweight.comparison import text
from featherweight.comparison.entrants import Entrant, baseline_entrants, enter, grouped
from featherweight.comparison.record import Row, build_record
from featherweight.config import CompareConfig
from featherweight.data.checks import drop_leaks
from featherweight.data.dataset import DataConfig, Dataset, Split, load_dataset
from featherweight.data.rows import listing
from featherweight.device import environment
from featherweight.disk.atomic import atomic_directory
from featherweight.errors import DataError, UsageError, shortened
from featherweight.quality.evaluation import Evaluation, evaluate
from featherweight.quality.robustness import robustness
from featherweight.run import CONFIG, Run
from featherweight.test import data_flags, trained_on
from featherweight.timing.latency import Latency, measure, timed_devices

logger = logging.getLogger("featherweight")

REPORT = "report.json"
FILES = {
    REPORT, "latency.json", "report.csv", "report.md", "report.html",
    *(f"{picture}.png" for picture in text.PICTURES),
}  # fmt: skip
_CUDA_GRAPHS = ", CUDA graphs"  # suffix of the row's name


def compare(config: CompareConfig) -> dict[str, Any]:
    """Compares runs with each other and with the baselines.

    Returns:
        The record that all tables and pictures are made from; see `compare_entrants`.

    Raises:
        UsageError: Flags are wrong, or the models are not comparable.
        WeightsError: Weights cannot be used.
        DataError: The data is not available or cannot be used.
    """
    if not config.weights:
        raise UsageError("give the weights to compare: run directories or .safetensors files")
    for path in config.weights:
        if config.weights.count(path) > 1:
            raise UsageError(f"{path} is listed twice")
    check_flags(config)
    entrants = [enter(path, config.device) for path in config.weights]
    return compare_entrants(config, entrants, compared_data(config))[0]


def compare_entrants(
    config: CompareConfig, entrants: Sequence[Entrant], data: DataConfig
) -> tuple[dict[str, Any], list[Evaluation]]:
    """Evaluates entrants and baselines on the same texts, times them in turns, and reports.

    Args:
        config: Split, reference, timing and report; its weights and data are not used.
        entrants: The models; the first names the classes where the data only numbers them.
        data: The data set.

    Returns:
        The record that all tables and pictures are made from, and the evaluations behind it.

    Raises:
        UsageError: The entrants are not comparable, or no row has the reference's name.
        DataError: The data is not available or cannot be used.
    """
    dataset, split = _load(data, entrants[0].classifier.labels, config.split)
    evaluated = [
        _evaluated(config, entrant, dataset, split)
        for entrant in (*entrants, *baseline_entrants(dataset))
    ]
    groups = grouped(evaluated, config.group)
    reference = config.reference or next(iter(groups))
    if reference not in groups:
        raise UsageError(f"--reference {shortened(reference)}: choose one of {listing(groups)}")
    latencies = _time(config, groups, dataset, split)
    rows = _rows(groups, latencies)
    record = {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "environment": environment(),
        "threads": config.threads,
        **build_record(rows, split.texts, reference, config.disagreements),
    }
    record["data"]["sha256"] = split.sha256
    if config.output_path:
        write_report(config.output_path, record, latencies)
    return record, [evaluation for row in rows for evaluation in row.evaluations]


def check_flags(config: CompareConfig) -> None:
    """Checks everything that can be checked before anything is loaded.

    Raises:
        UsageError: A flag is wrong; the message names it.
    """
    batch_sizes(config.batch_sizes)
    if config.cuda_graphs and "cuda" not in timed_devices(config.device):
        raise UsageError("--cuda_graphs: needs a CUDA device, and there is none")
    if config.disagreements < 0:
        raise UsageError(f"--disagreements {config.disagreements}: give 0 or more")
    if config.output_path:
        _refuse_foreign(config.output_path)


def batch_sizes(flag: str) -> list[int]:
    """Parses "1,32".

    Raises:
        UsageError: A size is not a whole number of at least 1.
    """
    sizes = flag.replace(" ", "").split(",")
    if not all(size.isdecimal() and len(size) < 10 and int(size) for size in sizes):
        raise UsageError(
            f"--batch_sizes {shortened(flag)}: give numbers of at least 1, such as 1,32,256"
        )
    return [int(size) for size in sizes]


def compared_data(config: CompareConfig) -> DataConfig:
    """Returns the data named by the flags, or the data set that all runs were trained on.

    Raises:
        UsageError: The training data is unknown, or differs between the runs.
    """
    if config.data or config.train_path or config.val_path or config.test_path:
        return data_flags(config)
    runs = [Run(path) for path in config.weights if (path / CONFIG).is_file()]
    if not runs:
        raise UsageError("the weights do not say what they were trained on: give --data")
    first, *others = runs
    for run in others:
        for name, split in first.read_json("data.json")["splits"].items():
            if run.read_json("data.json")["splits"].get(name) != split:
                raise UsageError(
                    f"{first.path} and {run.path} were trained on different data: "
                    "give --data to compare them on one data set"
                )
    return trained_on(first)


def write_report(path: Path, record: dict[str, Any], latencies: Sequence[Latency]) -> None:
    """Writes the report's files into a folder, all or none."""
    from featherweight.comparison import page, plots

    with atomic_directory(path) as folder:
        report = Run(folder)
        pictures = plots.pictures(record)
        report.write_json(REPORT, record)
        report.write_text("latency.json", json.dumps([latency.to_json() for latency in latencies]))
        report.write_text("report.csv", text.comma_separated(record))
        report.write_text("report.md", text.markdown(record))
        report.write_text("report.html", page.comparison_page(record, pictures))
        for name, png in pictures.items():
            report.write_bytes(f"{name}.png", png)
    logger.info("report: %s", path / "report.html")


def _refuse_foreign(path: Path) -> None:
    """Refuses a path that exists and is not an older report, which would be replaced."""
    if not path.exists():
        return
    names = {file.name for file in path.iterdir()} if path.is_dir() else set()
    if REPORT not in names or names - FILES:
        raise UsageError(f"--output_path {path} exists and is not a report: name a new folder")


def _load(data: DataConfig, labels: Sequence[str], name: str) -> tuple[Dataset, Split]:
    """Loads a data set and the split of it that is compared on."""
    dataset = load_dataset(data, labels)
    if data.drop_leaks:
        dataset = drop_leaks(dataset)[0]
    split = dataset.split(name)
    if len(set(split.labels.tolist())) < 2:
        raise DataError(
            f"the {name} split of {dataset.name} has one class only: nothing can be compared on it"
        )
    return dataset, split


def _evaluated(config: CompareConfig, entrant: Entrant, dataset: Dataset, split: Split) -> Entrant:
    """Returns an entrant with its evaluation, unless it is only timed."""
    if entrant.timed_only:
        return entrant
    logger.info("%s: evaluating on %d texts", entrant.classifier.name, len(split))
    row = dataclasses.replace(
        entrant.row,
        evaluations=(evaluate(entrant.classifier, split, dataset.name),),
        robustness=tuple(robustness(entrant.classifier, split)) if config.robustness else (),
    )
    return dataclasses.replace(entrant, row=row)


def _time(
    config: CompareConfig, groups: Mapping[str, Sequence[Entrant]], dataset: Dataset, split: Split
) -> list[Latency]:
    """Times the first member of each group, and its CUDA graphs if requested."""
    contenders = [
        dataclasses.replace(members[0].contender, name=name) for name, members in groups.items()
    ]
    if config.cuda_graphs:
        contenders += [
            dataclasses.replace(eager, name=f"{eager.name}{_CUDA_GRAPHS}", cuda_graphs=True)
            for eager in contenders
            if eager.weights is not None
        ]
    return measure(
        contenders,
        split.texts,
        batch_sizes=batch_sizes(config.batch_sizes),
        devices=timed_devices(config.device),
        threads=config.threads,
        train=dataset.train,
    )


def _rows(groups: Mapping[str, Sequence[Entrant]], latencies: Sequence[Latency]) -> list[Row]:
    """Returns one row per group, and one for its CUDA graphs where they were timed."""
    rows = []
    for name, members in groups.items():
        row = dataclasses.replace(
            members[0].row,
            evaluations=tuple(found for member in members for found in member.row.evaluations),
            rejected=next((member.row.rejected for member in members if member.row.rejected), ""),
            parameters=members[0].classifier.num_parameters(),
            size_bytes=members[0].classifier.size_bytes(),
        )
        for model in (name, f"{name}{_CUDA_GRAPHS}"):
            times = tuple(latency for latency in latencies if latency.model == model)
            if times or model == name:
                rows.append(dataclasses.replace(row, model=model, latencies=times))
    return rows
