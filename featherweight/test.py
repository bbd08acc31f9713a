"""`test`: a trained classifier on a split, beside the baselines that need no network."""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featherweight.baselines import baselines
from featherweight.config import EvaluationConfig
from featherweight.data.checks import drop_leaks
from featherweight.data.dataset import DataConfig, Dataset, load_dataset
from featherweight.errors import UsageError, WeightsError
from featherweight.loading import compression_of, load
from featherweight.quality.evaluation import Evaluation, evaluate
from featherweight.reports.reporting import write_evaluation
from featherweight.run import CONFIG, Run
from featherweight.timing.latency import Contender, Latency, measure, timed_devices

logger = logging.getLogger("featherweight")


BATCH_SIZE = 32  # of the timed batches
_MIN_SECONDS = 1.0  # of timing each


@dataclass(frozen=True)
class TestResult:
    """What `test` found on one split.

    Attributes:
        evaluation: That of the weights.
        others: Those of the variants and of the baselines.
        latencies: One a classifier and device, at batch size 32; empty if nothing was timed.
        rejected: Why `compress` rejected the evaluated variant; empty otherwise.
    """

    __test__ = False  # no test case, whatever its name

    evaluation: Evaluation
    others: list[Evaluation]
    latencies: list[Latency]
    rejected: str = ""


def test(config: EvaluationConfig, weights: Path, variants: Sequence[Path] = ()) -> TestResult:
    """Evaluates a classifier, variants of it and the baselines on the same split.

    On the run's own data the result becomes the run's `evaluation.json` and `latency.json`.

    Args:
        config: Data, split and device; with `json` nothing is timed.
        weights: Run directory or portable file.
        variants: Further weights for the tables.

    Raises:
        UsageError: There is no such split, or no data to test on.
        WeightsError: The weights cannot be used.
        DataError: The data cannot be used.
    """
    classifier = load(weights, config.device)
    rejected = compression_of(weights).get("rejected", "")
    if rejected:
        logger.warning("%s was rejected: %s", weights, rejected)
    run = Run(weights) if (weights / CONFIG).is_file() else None
    given = config.data or config.train_path or config.val_path or config.test_path
    if not given and run is None:
        raise UsageError(f"{weights} does not say what it was trained on: give --data")
    data_config = trained_on(run) if run and not given else data_flags(config)
    dataset = load_dataset(data_config, classifier.labels)
    split = dataset.split(config.split)
    train = drop_leaks(dataset)[0].train if data_config.drop_leaks else dataset.train
    compared = [
        *(load(path, config.device) for path in variants),
        *baselines(train, split.label_names),
    ]
    evaluation, *others = [evaluate(it, split, dataset.name) for it in (classifier, *compared)]
    if classifier.truncated_texts:
        logger.info("%d texts were cut at the maximum length", classifier.truncated_texts)
    contenders = [
        Contender(it.name, weights=path)
        for it, path in zip((classifier, *compared), (weights, *variants), strict=False)
    ]
    latencies = (
        []
        if config.json
        else measure(
            contenders,
            split.texts,
            batch_sizes=(BATCH_SIZE,),
            devices=timed_devices(config.device),
            threads=config.threads,
            min_seconds=_MIN_SECONDS,
        )
    )
    if run and not given:
        _say_if_changed(dataset, run.read_json("data.json"))
        write_evaluation(run, evaluation, split.texts)
        if latencies:
            run.write_text("latency.json", json.dumps([it.to_json() for it in latencies]))
    return TestResult(evaluation, others, latencies, rejected)


def trained_on(run: Run) -> DataConfig:
    """Returns the data flags a run was trained with."""
    saved: Mapping[str, Any] = run.read_json(CONFIG)
    try:
        fields = {field.name: saved[field.name] for field in dataclasses.fields(DataConfig)}
    except (KeyError, TypeError):
        raise WeightsError(f"{run.file(CONFIG)} does not say what it was trained on") from None
    for name in ("train_path", "val_path", "test_path"):
        fields[name] = Path(fields[name]) if fields[name] else None
    return DataConfig(**fields)


def data_flags(config: DataConfig) -> DataConfig:
    """Returns the data flags of a larger config, whose empty --data means the bundled corpus."""
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(DataConfig)}
    return DataConfig(**{**fields, "data": config.data or DataConfig.data})


def _say_if_changed(dataset: Dataset, saved: Mapping[str, Any]) -> None:
    for split in dataset.splits:
        if saved["splits"].get(split.name, {}).get("sha256") != split.sha256:
            logger.warning("the %s split has changed since the run was trained", split.name)
