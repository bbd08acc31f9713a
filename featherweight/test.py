"""`test`: evaluates a trained classifier and the baselines on a split."""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featherweight.baselines import baselines
from featherweight.classifier import Classifier
from featherweight.config import EvaluationConfig
from featherweight.data.checks import drop_leaks
from featherweight.data.dataset import DataConfig, Dataset, Split, load_dataset
from featherweight.data.dialect import Dialect
from featherweight.errors import UsageError, WeightsError
from featherweight.loading import compression_of, load
from featherweight.quality.evaluation import Evaluation, evaluate
from featherweight.reports.reporting import draw_evaluation, write_results
from featherweight.run import CONFIG, Run
from featherweight.timing.latency import Contender, Latency, measure, timed_devices

logger = logging.getLogger("featherweight")

BATCH_SIZE = 32  # of the timed batches
_MIN_SECONDS = 1.0  # of timing, per classifier


@dataclass(frozen=True)
class TestResult:
    """The results of `test` on one split.

    Attributes:
        evaluation: Evaluation of the weights.
        others: Evaluations of the variants and the baselines.
        latencies: One per classifier and device, at batch size 32; empty if nothing was timed.
        rejected: Why `compress` rejected the evaluated variant; empty otherwise.
    """

    __test__ = False  # keeps pytest from collecting the class

    evaluation: Evaluation
    others: list[Evaluation]
    latencies: list[Latency]
    rejected: str = ""


def test(config: EvaluationConfig, weights: Path, variants: Sequence[Path] = ()) -> TestResult:
    """Evaluates a classifier, variants of it and the baselines on the same split.

    On the data of the run, writes the results into files of their own in the run, such as
    `evaluation-test.json`, and `latency.json`.

    Args:
        config: Data, split and device; with `json` nothing is timed.
        weights: Run directory or portable file.
        variants: Further weights for the tables.

    Raises:
        UsageError: The split does not exist, or the data to use is unknown.
        WeightsError: The weights are not usable.
        DataError: The data is not usable.
    """
    classifier = load(weights, config.device)
    rejected = compression_of(weights).get("rejected", "")
    if rejected:
        logger.warning("%s was rejected: %s", weights, rejected)
    run = Run(weights) if (weights / CONFIG).is_file() else None
    other_data = config.data or config.train_path or config.val_path or config.test_path
    if not other_data and run is None:
        raise UsageError(f"{weights} does not record its training data: give --data")
    data_config = trained_on(run) if run and not other_data else data_flags(config)
    dataset = load_dataset(data_config, classifier.labels)
    split = dataset.split(config.split)
    train = drop_leaks(dataset)[0].train if data_config.drop_leaks else dataset.train
    others = [load(path, config.device) for path in variants]
    classifiers = [classifier, *others, *baselines(train, split.label_names)]
    evaluations = [evaluate(model, split, dataset.name) for model in classifiers]
    if classifier.truncated_texts:
        logger.info("%d texts were truncated", classifier.truncated_texts)
    latencies = [] if config.json else _measure(config, classifiers, [weights, *variants], split)
    if run and not other_data:
        _warn_if_changed(dataset, run.read_json("data.json"))
        write_results(run, evaluations[0], split.texts, split.name)
        if latencies:
            run.write_text("latency.json", json.dumps([record.to_json() for record in latencies]))
        draw_evaluation(run, evaluations[0], split.name)
    return TestResult(evaluations[0], evaluations[1:], latencies, rejected)


def _measure(
    config: EvaluationConfig, classifiers: Sequence[Classifier], paths: Sequence[Path], split: Split
) -> list[Latency]:
    """Times the classifiers that have a path; the baselines, which have none, come last."""
    pairs = zip(classifiers, paths, strict=False)
    return measure(
        [Contender(classifier.name, weights=path) for classifier, path in pairs],
        split.texts,
        batch_sizes=(BATCH_SIZE,),
        devices=timed_devices(config.device),
        threads=config.threads,
        min_seconds=_MIN_SECONDS,
    )


def trained_on(run: Run) -> DataConfig:
    """Returns the data flags a run was trained with.

    Raises:
        WeightsError: The run does not record them.
    """
    saved: dict[str, Any] = run.read_json(CONFIG)
    try:
        saved = vars(Dialect()) | saved  # which earlier versions did not have
        fields = {field.name: saved[field.name] for field in dataclasses.fields(DataConfig)}
    except (KeyError, TypeError):
        raise WeightsError(f"{run.file(CONFIG)} does not record the training data") from None
    for name in ("train_path", "val_path", "test_path"):
        fields[name] = Path(fields[name]) if fields[name] else None
    return DataConfig(**fields)


def data_flags(config: DataConfig) -> DataConfig:
    """Returns the data flags of a larger config; an empty --data becomes the bundled corpus."""
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(DataConfig)}
    return DataConfig(**{**fields, "data": config.data or DataConfig.data})


def _warn_if_changed(dataset: Dataset, saved: Mapping[str, Any]) -> None:
    for split in dataset.splits:
        if saved["splits"].get(split.name, {}).get("sha256") != split.sha256:
            logger.warning("the %s split has changed since the run was trained", split.name)
