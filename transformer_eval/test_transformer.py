"""`test_transformer`: transformers beside the LSTM, on the same texts, in one table."""

import logging
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import AutoModelForSequenceClassification

from featherweight.baselines import TfidfSVM
from featherweight.comparison.compare import check_flags, compare_entrants, compared_data
from featherweight.comparison.entrants import Entrant, enter
from featherweight.config import CompareConfig
from featherweight.data.dataset import Dataset, load_dataset
from featherweight.data.labels import parse_names
from featherweight.errors import UsageError, WeightsError
from featherweight.quality.evaluation import Evaluation
from featherweight.run import TRANSFORMER
from featherweight.timing.latency import Contender
from transformer_eval import random_weights
from transformer_eval.classifier import (
    NORMALIZER,
    TransformerClassifier,
    load_model,
    load_tokenizer,
    numbered,
)
from transformer_eval.config import VersusConfig
from transformer_eval.model_files import Files, fetch
from transformer_eval.registry import REGISTRY, models

logger = logging.getLogger("featherweight")


def test_transformer(
    config: VersusConfig, lstms: Sequence[Path]
) -> tuple[dict[str, Any], list[Evaluation]]:
    """Compares transformers with LSTMs and the baselines.

    Args:
        config: Transformers, data, split and timing.
        lstms: Runs or portable files of the LSTM and its variants; the first is the reference.

    Returns:
        The record of the comparison, and the evaluations behind it but those of the baselines.

    Raises:
        UsageError: The flags do not fit together, or a model tells other classes apart.
        WeightsError: Weights cannot be had or used.
        DataError: The data cannot be used.
    """
    compared = _compare_config(config, lstms)
    check_flags(compared)
    entrants = [enter(path, config.device) for path in lstms]
    data = compared_data(compared)
    dataset = load_dataset(data, entrants[0].classifier.labels if entrants else None)
    with TemporaryDirectory() as folder:
        for model in models(config.model, fine_tuned=True):
            workspace = Path(folder) / str(len(entrants))
            entrants.append(
                timed_only(model, dataset, workspace, config.device)
                if config.latency_only
                else _answering(config, model, dataset)
            )
        record, evaluations = compare_entrants(compared, entrants, data)
    asked = {entrant.classifier.name for entrant in entrants}
    return record, [evaluation for evaluation in evaluations if evaluation.model in asked]


def _compare_config(config: VersusConfig, lstms: Sequence[Path]) -> CompareConfig:
    """The flags as `compare` knows them; a transformer's own run may say what the data is."""
    known = {field.name for field in fields(CompareConfig)}
    shared = {field.name for field in fields(VersusConfig)} & known
    values = {name: getattr(config, name) for name in shared - {"weights"}}
    runs = [Path(model) for model in config.model if (Path(model) / TRANSFORMER).is_dir()]
    # Nothing can be tested against a model that is only timed.
    reference = TfidfSVM.name if config.latency_only and not lstms else ""
    return CompareConfig(**values, weights=[*lstms, *runs], reference=reference)


def _answering(config: VersusConfig, model: str, dataset: Dataset) -> Entrant:
    """A model with a trained head, its classes called as the data calls them."""
    try:
        files = fetch(model)
    except WeightsError as error:
        if model not in REGISTRY:
            raise
        raise WeightsError(f"{error}; or see its speed alone with --latency_only") from None
    known = files.model.labels if files.model else ()
    stated = parse_names(config.model_labels, "--model_labels") or known
    classifier = TransformerClassifier.load(files.folder, config.device, files.name, stated)
    if numbered(classifier.labels) and not numbered(dataset.labels):
        raise UsageError(
            f"{files.name} only numbers its {len(classifier.labels)} classes: name as many with "
            "--model_labels, in the order of their ids"
        )
    spelling = {label.casefold(): label for label in dataset.labels}
    classifier.labels = tuple(spelling.get(it.casefold(), it) for it in classifier.labels)
    if sorted(classifier.labels) != sorted(dataset.labels):  # not as sets: none may stand twice
        raise UsageError(
            f"{files.name} tells {', '.join(classifier.labels)} apart, {dataset.name} has "
            f"{', '.join(dataset.labels)}: not comparable; fine-tune it, or give --latency_only"
        )
    return Entrant(classifier, Contender(files.name, weights=files.folder), str(files.folder))


def timed_only(model: str, dataset: Dataset, folder: Path, device: str) -> Entrant:
    """Returns a model with a new head, and with random weights where its own cannot be had.

    Args:
        model: Registry name, Hub id or folder.
        dataset: Has as many classes as the head will.
        folder: Where its files are written; they are needed as long as it is timed.
        device: "auto", "cpu" or "cuda".

    Raises:
        WeightsError: The weights cannot be had, and the registry does not know its architecture.
    """
    try:
        name, note = _with_new_head(fetch(model), dataset.labels, folder)
    except WeightsError as error:
        if model not in REGISTRY:
            raise
        logger.warning("%s is timed with random weights: %s", model, error)
        random_weights.build(REGISTRY[model], dataset.train.texts, dataset.labels, folder)
        name, note = model, "only timed, with random weights and a stand-in for its tokenizer"
    classifier = TransformerClassifier.load(folder, device, name)
    return Entrant(classifier, Contender(name, weights=folder), name, timed_only=True, note=note)


def _with_new_head(files: Files, labels: Sequence[str], folder: Path) -> tuple[str, str]:
    network = load_model(
        AutoModelForSequenceClassification,
        files.folder,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        ignore_mismatched_sizes=True,
    )
    if files.model and files.model.normalizer:
        setattr(network.config, NORMALIZER, files.model.normalizer)  # it takes time too
    network.save_pretrained(folder)
    load_tokenizer(files.folder).save_pretrained(folder)
    return files.name, "only timed"
