"""`test_transformer`: compares transformers and the LSTM on the same texts."""

import logging
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from featherweight.baselines import TfidfSVM
from featherweight.comparison.compare import check_flags, compare_entrants, compared_data
from featherweight.comparison.entrants import Entrant, enter
from featherweight.comparison.record import Row
from featherweight.config import CompareConfig
from featherweight.data.dataset import Dataset, load_dataset
from featherweight.data.labels import parse_names
from featherweight.data.rows import listing
from featherweight.errors import UsageError, WeightsError
from featherweight.quality.evaluation import Evaluation
from featherweight.run import TRANSFORMER
from featherweight.timing.latency import Contender
from transformer_eval import random_weights
from transformer_eval.classifier import TransformerClassifier, load_tokenizer, numbered
from transformer_eval.config import TransformerTestConfig
from transformer_eval.finetune import with_new_head
from transformer_eval.model_files import fetch
from transformer_eval.registry import REGISTRY, models

logger = logging.getLogger("featherweight")


def test_transformer(
    config: TransformerTestConfig, lstms: Sequence[Path]
) -> tuple[dict[str, Any], list[Evaluation]]:
    """Compares transformers with LSTMs and the baselines.

    Args:
        config: Transformers, data, split and timing.
        lstms: Runs or portable files of the LSTM and its variants; the first is the reference.

    Returns:
        The record of the comparison, and the evaluations of all models except the baselines.

    Raises:
        UsageError: The flags do not fit together, or a model has different labels.
        WeightsError: Weights are not available or not usable.
        DataError: The data is not usable.
    """
    compared = _compare_config(config, lstms)
    check_flags(compared)
    entrants = [enter(path, config.device) for path in lstms]
    data = compared_data(compared)
    dataset = load_dataset(data, entrants[0].classifier.labels if entrants else None)
    with TemporaryDirectory() as folder:
        for model in models(config.model, fine_tuned=True):
            workspace = Path(folder) / str(len(entrants))
            if config.latency_only:
                entrants.append(timed_only(model, dataset, workspace, config.device))
            else:
                entrants.append(_evaluated(config, model, dataset))
        record, evaluations = compare_entrants(compared, entrants, data)
    names = {entrant.classifier.name for entrant in entrants}
    return record, [evaluation for evaluation in evaluations if evaluation.model in names]


def _compare_config(config: TransformerTestConfig, lstms: Sequence[Path]) -> CompareConfig:
    """Returns the options of `compare`; runs of transformers may determine the data, too."""
    own = vars(config)
    shared = {field.name for field in fields(CompareConfig)} & own.keys() - {"weights"}
    values = {name: own[name] for name in shared}
    runs = [Path(model) for model in config.model if (Path(model) / TRANSFORMER).is_dir()]
    # A model that is only timed has no predictions to test against.
    reference = TfidfSVM.name if config.latency_only and not lstms else ""
    return CompareConfig(**values, weights=[*lstms, *runs], reference=reference)


def _evaluated(config: TransformerTestConfig, model: str, dataset: Dataset) -> Entrant:
    """Returns a model with a trained head and the label names of the data."""
    try:
        files = fetch(model)
    except WeightsError as error:
        if model not in REGISTRY:
            raise
        raise WeightsError(f"{error}; or measure only its speed with --latency_only") from None
    registry_names = files.model.labels if files.model else ()
    names = parse_names(config.model_labels, "--model_labels") or registry_names
    classifier = TransformerClassifier.load(files.folder, config.device, files.name, names)
    if numbered(classifier.labels) and not numbered(dataset.labels):
        raise UsageError(
            f"{files.name} only numbers its {len(classifier.labels)} classes: name all with "
            "--model_labels, in id order"
        )
    spelling = {label.casefold(): label for label in dataset.labels}
    labels = tuple(spelling.get(label.casefold(), label) for label in classifier.labels)
    if sorted(labels) != sorted(dataset.labels):  # sets would hide duplicates
        unnamed = numbered(dataset.labels) and not numbered(labels)
        way_out = "name the ids of the data with --labels, " if unnamed else ""
        raise UsageError(
            f"{files.name} has the labels {listing(labels)}, {dataset.name} has "
            f"{listing(dataset.labels)}: not comparable; {way_out}fine-tune it, or give "
            "--latency_only"
        )
    classifier.labels = labels
    contender = Contender(files.name, weights=files.folder)
    return Entrant(classifier, contender, str(files.folder), Row(files.name))


def timed_only(model: str, dataset: Dataset, folder: Path, device: str) -> Entrant:
    """Returns a model with a new head, and with random weights if its own are not available.

    Args:
        model: Registry name, Hub id or folder.
        dataset: Its labels are those of the head.
        folder: Where the model is written; it must exist until the model has been timed.
        device: "auto", "cpu" or "cuda".

    Raises:
        WeightsError: The weights are not available, and the model is not in the registry.
    """
    try:
        files = fetch(model)
        with_new_head(files, dataset.labels).save_pretrained(folder)
        load_tokenizer(files.folder).save_pretrained(folder)
        name, note = files.name, "only timed"
    except WeightsError as error:
        if model not in REGISTRY:
            raise
        logger.warning("%s is timed with random weights: %s", model, error)
        random_weights.build(REGISTRY[model], dataset.train.texts, dataset.labels, folder)
        name, note = model, "only timed, with random weights and a stand-in for its tokenizer"
    classifier = TransformerClassifier.load(folder, device, name)
    contender, row = Contender(name, weights=folder), Row(name, note=note)
    return Entrant(classifier, contender, name, row, timed_only=True)
