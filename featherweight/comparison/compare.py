"""`compare`: any contenders answer the same texts in one run, and are timed in turns."""

import dataclasses
import itertools
import json
import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featherweight.baselines import baselines
from featherweight.classifier import Classifier
from featherweight.comparison import text
from featherweight.comparison.record import Row, build_record
from featherweight.config import CompareConfig
from featherweight.data.checks import drop_leaks
from featherweight.data.dataset import DataConfig, Dataset, Split, load_dataset
from featherweight.device import environment
from featherweight.errors import DataError, UsageError
from featherweight.loading import load, mark_rejected
from featherweight.quality.evaluation import Evaluation, evaluate
from featherweight.quality.robustness import Robustness, robustness
from featherweight.run import CONFIG, Run, atomic_directory
from featherweight.test import data_flags, trained_on
from featherweight.timing.latency import Contender, Latency, measure, timed_devices

logger = logging.getLogger("featherweight")

REPORT = "report.json"
FILES = {
    REPORT, "latency.json", "report.csv", "report.md", "report.html", "trade_off.png",
    "confusion_matrices.png", "per_class.png",
}  # fmt: skip
_GRAPHED = ", CUDA graphs"
_IDENTITY = {"kind", "name", "output_dir", "overwrite", "resume", "seed"}  # may differ in a group


@dataclass(frozen=True)
class Entrant:
    """Who takes part.

    Attributes:
        classifier: Answers the texts.
        contender: How a timing process gets it.
        identity: Equal for runs that differ in their seed only.
        answers: Whether it is worth asking; if not, it is only timed.
        note: What a reader must know.
    """

    classifier: Classifier
    contender: Contender
    identity: str
    answers: bool = True
    note: str = ""


@dataclass
class _Candidate:
    """An entrant on its way to a row."""

    entrant: Entrant
    evaluation: Evaluation | None
    robustness: list[Robustness]


def compare(config: CompareConfig) -> dict[str, Any]:
    """Compares runs with each other and with the baselines.

    Returns:
        The record that every table and picture is made from; see `compete`.

    Raises:
        UsageError: Flags are wrong, or the contenders are not comparable.
        WeightsError: Weights cannot be used.
        DataError: The data has gone or cannot be used.
    """
    if not config.weights:
        raise UsageError("give the weights to compare: run directories or .safetensors files")
    twice = [path for path in config.weights if config.weights.count(path) > 1]
    if twice:
        raise UsageError(f"{twice[0]} is given twice")
    check_flags(config)
    entrants = [enter(path, config.device) for path in config.weights]
    return compete(config, entrants, compared_data(config))[0]


def enter(weights: Path, device: str) -> Entrant:
    """Returns a run or portable file as an entrant."""
    classifier = load(weights, "cpu" if device == "cpu" else "auto")
    why = mark_rejected(classifier, weights)
    contender = Contender(classifier.name, weights=weights)
    return Entrant(classifier, contender, _identity(weights), note=why and f"rejected, since {why}")


def compete(
    config: CompareConfig, entrants: Sequence[Entrant], data: DataConfig
) -> tuple[dict[str, Any], list[Evaluation]]:
    """Lets entrants and the baselines answer the same texts, times them in turns, and reports.

    Args:
        config: Split, reference, timing and report; its weights and data are not looked at.
        entrants: Who takes part; the first names the classes where the data only numbers them.
        data: Where the texts come from.

    Returns:
        The record that every table and picture is made from, and the evaluations behind it.

    Raises:
        UsageError: The entrants are not comparable, or no row has the reference's name.
        DataError: The data has gone or cannot be used.
    """
    dataset = load_dataset(data, entrants[0].classifier.labels)
    if data.drop_leaks:
        dataset = drop_leaks(dataset)[0]
    split = dataset.split(config.split)
    if len(set(split.labels.tolist())) < 2:
        raise DataError(
            f"the {split.name} split of {dataset.name} has one class only: "
            "nothing can be compared on it"
        )
    everyone = [*entrants, *_baselines(dataset)]
    groups = _groups([_answer(config, it, dataset, split) for it in everyone], config.group)
    reference = config.reference or next(iter(groups))
    if reference not in groups:
        raise UsageError(f"--reference {reference}: choose one of {', '.join(groups)}")
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
    """Refuses what can be refused before anything is loaded.

    Raises:
        UsageError: The message names the flag.
    """
    batch_sizes(config.batch_sizes)
    if config.cuda_graphs and "cuda" not in timed_devices(config.device):
        raise UsageError("--cuda_graphs: no CUDA device is here to replay graphs on")
    if config.disagreements < 0:
        raise UsageError(f"--disagreements {config.disagreements}: give 0 or more")
    if config.output_path:
        _refuse_foreign(config.output_path)


def _answer(config: CompareConfig, entrant: Entrant, dataset: Dataset, split: Split) -> _Candidate:
    """Lets an entrant answer the split."""
    classifier = entrant.classifier
    if not entrant.answers:
        return _Candidate(entrant, None, [])
    logger.info("%s: answering %d texts", classifier.name, len(split))
    evaluation = evaluate(classifier, split, dataset.name)
    perturbed = robustness(classifier, split) if config.robustness else []
    return _Candidate(entrant, evaluation, perturbed)


def _time(
    config: CompareConfig,
    groups: Mapping[str, Sequence[_Candidate]],
    dataset: Dataset,
    split: Split,
) -> list[Latency]:
    """Times the first member of each group, and if asked its CUDA graphs."""
    contenders = [
        dataclasses.replace(members[0].entrant.contender, name=name)
        for name, members in groups.items()
    ]
    if config.cuda_graphs:
        contenders += [
            dataclasses.replace(it, name=f"{it.name}{_GRAPHED}", cuda_graphs=True)
            for it in contenders
            if it.weights is not None
        ]
    return measure(
        contenders,
        split.texts,
        batch_sizes=batch_sizes(config.batch_sizes),
        devices=timed_devices(config.device),
        threads=config.threads,
        train=dataset.train,
    )


def _rows(groups: Mapping[str, Sequence[_Candidate]], latencies: Sequence[Latency]) -> list[Row]:
    """A row for each group, and one for its CUDA graphs where they were timed."""
    rows = []
    for name, members in groups.items():
        evaluations = tuple(it.evaluation for it in members if it.evaluation)
        first = members[0]
        for model in (name, f"{name}{_GRAPHED}"):
            times = tuple(latency for latency in latencies if latency.model == model)
            if times or model == name:
                row = Row(
                    model,
                    evaluations,
                    times,
                    tuple(first.robustness),
                    first.entrant.note,
                    *([] if evaluations else _weight(first.entrant.classifier)),
                )
                rows.append(row)
    return rows


def _weight(classifier: Classifier) -> tuple[int, int]:
    return classifier.num_parameters(), classifier.size_bytes()


def batch_sizes(flag: str) -> list[int]:
    """Reads "1,32".

    Raises:
        UsageError: A size is no whole number of at least 1.
    """
    sizes = flag.replace(" ", "").split(",")
    if not all(size.isdecimal() and int(size) for size in sizes):
        raise UsageError(f"--batch_sizes {flag}: give numbers of at least 1, such as 1,32,256")
    return [int(size) for size in sizes]


def write_report(path: Path, record: dict[str, Any], latencies: Sequence[Latency]) -> None:
    """Writes the report's files into a folder, all or none."""
    from featherweight.comparison import page
    from featherweight.reports import plots

    with atomic_directory(path) as folder:
        report = Run(folder)
        report.write_json(REPORT, record)
        report.write_text("latency.json", json.dumps([latency.to_json() for latency in latencies]))
        report.write_text("report.csv", text.comma_separated(record))
        report.write_text("report.md", text.markdown(record))
        report.write_text("report.html", page.comparison_page(record))
        report.write_bytes("trade_off.png", plots.trade_off(record))
        report.write_bytes("confusion_matrices.png", plots.confusion_matrices(record))
        report.write_bytes("per_class.png", plots.per_class_bars(record))
    logger.info("report: %s", path / "report.html")


def _refuse_foreign(path: Path) -> None:
    """A report takes the place of an older one, and of nothing else."""
    if not path.exists():
        return
    names = {file.name for file in path.iterdir()} if path.is_dir() else set()
    if REPORT not in names or names - FILES:
        raise UsageError(f"--output_path {path} is there and holds no report: name a new folder")


def compared_data(config: CompareConfig) -> DataConfig:
    """Returns the data named by the flags, or the one data set that all runs were trained on.

    Raises:
        UsageError: The runs do not say, or were trained on different data.
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
                    "give --data to compare them on one"
                )
    return trained_on(first)


def _baselines(dataset: Dataset) -> list[Entrant]:
    return [
        Entrant(baseline, Contender(baseline.name, baseline=baseline.name), baseline.name)
        for baseline in baselines(dataset.train, dataset.labels)
    ]


def _identity(path: Path) -> str:
    """What runs have in common that differ in their seed only."""
    if not (path / CONFIG).is_file():
        return str(path)
    saved = Run(path).read_json(CONFIG)
    kept = {name: value for name, value in saved.items() if name not in _IDENTITY}
    method = path.name if path.parent.name == "compressed" else ""
    return json.dumps([kept, method], sort_keys=True)


def _groups(candidates: Sequence[_Candidate], group: bool) -> dict[str, list[_Candidate]]:
    """Candidates by the name of their row."""
    by_identity: dict[str, list[_Candidate]] = {}
    for number, candidate in enumerate(candidates):
        key = candidate.entrant.identity if group else str(number)
        by_identity.setdefault(key, []).append(candidate)
    groups: dict[str, list[_Candidate]] = {}
    for members in by_identity.values():
        names = [member.entrant.classifier.name for member in members]
        name = names[0] if len(names) == 1 else _common_name(names)
        if name in groups and len(names) > 1:
            name = names[0]
        if name in groups:
            raise UsageError(f"two contenders are called {name}: rename a run, or give --group")
        groups[name] = members
    return groups


def _common_name(names: Sequence[str]) -> str:
    """What "feather-0 (fp16)" and "feather-1 (fp16)" share: "feather (fp16)"."""
    stems, _, (method, *_) = zip(*(name.partition(" (") for name in names), strict=True)
    letters = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*stems, strict=False))
    stem = "".join(column[0] for column in letters).rstrip("-_. 0123456789") or stems[0]
    return f"{stem} ({method}" if method else stem
