"""The classifiers that take part in a comparison, and how seeds are grouped into rows."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from featherweight.baselines import baselines
from featherweight.classifier import Classifier
from featherweight.comparison.record import Row
from featherweight.data.dataset import Dataset
from featherweight.errors import UsageError
from featherweight.loading import compression_of, load
from featherweight.run import CONFIG, Run
from featherweight.timing.latency import Contender

# Options that may differ within a group.
_NOT_IDENTITY = {"kind", "name", "output_dir", "overwrite", "resume", "seed"}


@dataclass(frozen=True)
class Entrant:
    """A classifier that takes part in a comparison.

    Attributes:
        classifier: The classifier.
        contender: How a timing process loads it.
        identity: Equal for runs that differ in their seed only.
        row: What is known about it for the tables.
        timed_only: Whether only its speed and size are compared.
    """

    classifier: Classifier
    contender: Contender
    identity: str
    row: Row
    timed_only: bool = False


def enter(weights: Path, device: str) -> Entrant:
    """Loads a run or portable file as an entrant.

    Raises:
        WeightsError: The weights cannot be used.
    """
    classifier = load(weights, "cpu" if device == "cpu" else "auto")
    row = Row(classifier.name)
    if compression := compression_of(weights):
        rejected, method = compression["rejected"], compression["method"]
        row = Row(row.model, rejected=rejected, method=method, origin=compression["origin"]["name"])
    return Entrant(classifier, Contender(classifier.name, weights=weights), _identity(weights), row)


def baseline_entrants(dataset: Dataset) -> list[Entrant]:
    """Returns the baselines, fitted on the training split."""
    return [
        Entrant(model, Contender(model.name, baseline=model.name), model.name, Row(model.name))
        for model in baselines(dataset.train, dataset.labels)
    ]


def grouped(entrants: Sequence[Entrant], group: bool) -> dict[str, list[Entrant]]:
    """Returns the entrants of each row by its name.

    Args:
        entrants: The entrants.
        group: Whether runs that differ only in their seed are one row.

    Raises:
        UsageError: Two rows have the same name.
    """
    by_identity: dict[str, list[Entrant]] = {}
    for number, entrant in enumerate(entrants):
        by_identity.setdefault(entrant.identity if group else str(number), []).append(entrant)
    groups: dict[str, list[Entrant]] = {}
    for members in by_identity.values():
        names = [member.classifier.name for member in members]
        name = names[0] if len(names) == 1 else _common_name(names)
        if name in groups and len(names) > 1:
            name = names[0]
        if name in groups:
            raise UsageError(f"two models are called {name}: rename a run, or give --group")
        groups[name] = members
    return groups


def _identity(weights: Path) -> str:
    """Returns what runs have in common that differ in their seed only."""
    if not (weights / CONFIG).is_file():
        return str(weights)
    config = Run(weights).read_json(CONFIG)
    shared = {name: value for name, value in config.items() if name not in _NOT_IDENTITY}
    method = weights.name if weights.parent.name == "compressed" else ""
    return json.dumps([shared, method], sort_keys=True)


def _common_name(names: Sequence[str]) -> str:
    """Returns "feather (fp16)" for "feather-0 (fp16)" and "feather-1 (fp16)"."""
    stems, _, (suffix, *_) = zip(*(name.partition(" (") for name in names), strict=True)
    letters = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*stems, strict=False))
    stem = "".join(column[0] for column in letters).rstrip("-_. 0123456789") or stems[0]
    return f"{stem} ({suffix}" if suffix else stem
