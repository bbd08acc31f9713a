"""`test`: a trained classifier on a split, beside the baselines that need no network."""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featherweight.baselines import baselines
from featherweight.checks import drop_leaks
from featherweight.config import EvaluationConfig
from featherweight.dataset import DataConfig, Dataset, load_dataset
from featherweight.errors import UsageError, WeightsError
from featherweight.evaluation import Evaluation, evaluate
from featherweight.loading import load
from featherweight.reporting import write_evaluation
from featherweight.run import CONFIG, Run, newest_run

logger = logging.getLogger("featherweight")


def test(config: EvaluationConfig) -> tuple[Evaluation, list[Evaluation]]:
    """Evaluates a classifier and the baselines on the same split.

    On the run's own data the result becomes the run's `evaluation.json`.

    Returns:
        The classifier's evaluation, and those of the baselines.

    Raises:
        UsageError: There is no run, no such split, or no data to test on.
        WeightsError: The weights cannot be used.
        DataError: The data cannot be used.
    """
    weights = config.weights or newest_run(config.output_dir).path
    classifier = load(weights, config.device)
    run = Run(weights) if (weights / CONFIG).is_file() else None
    own_data = not (config.data or config.train_path or config.val_path or config.test_path)
    if own_data and run is None:
        raise UsageError(f"{weights} does not say what it was trained on: give --data")
    data_config = trained_on(run) if own_data and run else data_flags(config)
    dataset = load_dataset(data_config, classifier.labels)
    split = dataset.split(config.split)
    evaluation = evaluate(classifier, split, dataset.name)
    if classifier.truncated_texts:
        logger.info("%d texts were cut at the maximum length", classifier.truncated_texts)
    if own_data and run:
        _say_if_changed(dataset, run.read_json("data.json"))
        write_evaluation(run, evaluation, split.texts)
    if data_config.drop_leaks:
        dataset, _ = drop_leaks(dataset)
    others = baselines(dataset.train, dataset.labels)
    return evaluation, [evaluate(baseline, split, dataset.name) for baseline in others]


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
