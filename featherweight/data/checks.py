"""Data checks: repeated texts, conflicting labels, leaks between splits, empty texts."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from featherweight.data.dataset import Dataset
from featherweight.data.rows import listing
from featherweight.errors import DataError


@dataclass(frozen=True)
class Occurrence:
    """One row of a split."""

    split: str
    row: int  # position in the split, from 1
    label: str


@dataclass(frozen=True)
class Finding:
    """A text and its rows, in the order train, validation, test."""

    text: str
    occurrences: tuple[Occurrence, ...]

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that contain the text."""
        return tuple(dict.fromkeys(occurrence.split for occurrence in self.occurrences))

    @property
    def is_conflict(self) -> bool:
        """Whether the rows have different labels."""
        return len({occurrence.label for occurrence in self.occurrences}) > 1


@dataclass(frozen=True)
class Findings:
    """What `check` found; texts are compared without surrounding white space.

    Attributes:
        repeated: Texts that occur more than once in a split, with their rows in that split.
        conflicting: Texts with more than one label, with their rows in all splits.
        shared: Texts that occur in more than one split, with all their rows.
        empty: Rows without a text.
        missing_classes: Labels without any text in a split, by split.
    """

    repeated: tuple[Finding, ...]
    conflicting: tuple[Finding, ...]
    shared: tuple[Finding, ...]
    empty: tuple[Occurrence, ...]
    missing_classes: dict[str, tuple[str, ...]]

    def lines(self) -> list[str]:
        """Returns at most six one-line summaries, none if nothing was found."""
        lines = []
        if self.repeated:
            counts = _by_split(finding.splits for finding in self.repeated)
            conflicts = _by_split(f.splits for f in self.repeated if f.is_conflict)
            parts = [
                f"{count} in {split} ({conflicts.get(split, 0)} with different labels)"
                for split, count in counts.items()
            ]
            lines.append("repeated texts: " + ", ".join(parts))
        if self.conflicting:
            lines.append(f"texts with different labels, over all splits: {len(self.conflicting)}")
        leaks = [finding.splits[1:] for finding in self.shared if finding.splits[0] == "train"]
        if leaks:
            lines.append(
                f"training texts that also occur in other splits: {_counts(leaks)}; "
                "--drop_leaks removes them from train"
            )
        if len(self.shared) > len(leaks):
            lines.append(f"texts in both validation and test: {len(self.shared) - len(leaks)}")
        if self.empty:
            lines.append(f"empty texts: {_counts([row.split] for row in self.empty)}")
        if self.missing_classes:
            parts = [
                f"{listing(names)} in {split}" for split, names in self.missing_classes.items()
            ]
            lines.append("classes without a text: " + "; ".join(parts))
        return lines

    def to_json(self) -> dict[str, Any]:
        """Returns all findings as values that `json.dumps` accepts."""
        return asdict(self)


def check(dataset: Dataset) -> Findings:
    """Finds properties of a data set that make measurements on it misleading."""
    occurrences: dict[str, list[Occurrence]] = {}
    for split in dataset.splits:
        for row, (text, label) in enumerate(zip(split.texts, split.labels, strict=True), 1):
            occurrence = Occurrence(split.name, row, dataset.labels[label])
            occurrences.setdefault(text.strip(), []).append(occurrence)
    empty = tuple(occurrences.pop("", ()))
    repeated = [Finding(text, tuple(rows)) for text, rows in occurrences.items() if len(rows) > 1]
    return Findings(
        repeated=tuple(_within_a_split(repeated)),
        conflicting=tuple(finding for finding in repeated if finding.is_conflict),
        shared=tuple(finding for finding in repeated if len(finding.splits) > 1),
        empty=empty,
        missing_classes=_missing_classes(dataset),
    )


def drop_leaks(dataset: Dataset) -> tuple[Dataset, int]:
    """Removes from train the texts that also occur in validation or test.

    Returns:
        The data set without them, and the number of rows removed.

    Raises:
        DataError: No training text remains.
    """
    held_out = {text.strip() for split in dataset.splits[1:] for text in split.texts} - {""}
    train = dataset.train
    rows = [i for i, text in enumerate(train.texts) if text.strip() not in held_out]
    if not rows:
        raise DataError(f"every training text of {dataset.name} also occurs in validation or test")
    texts = tuple(train.texts[i] for i in rows)
    remaining = replace(train, texts=texts, labels=train.labels[rows])
    return replace(dataset, train=remaining), len(train) - len(rows)


def _within_a_split(findings: Iterable[Finding]) -> Iterator[Finding]:
    for finding in findings:
        for split in finding.splits:
            rows = tuple(row for row in finding.occurrences if row.split == split)
            if len(rows) > 1:
                yield Finding(finding.text, rows)


def _missing_classes(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    missing = {}
    for split in dataset.splits:
        present = set(split.labels.tolist())
        names = tuple(name for i, name in enumerate(dataset.labels) if i not in present)
        if names:
            missing[split.name] = names
    return missing


def _by_split(splits: Iterable[Iterable[str]]) -> dict[str, int]:
    counts = Counter(split for names in splits for split in names)
    return {split: counts[split] for split in ("train", "validation", "test") if counts[split]}


def _counts(splits: Iterable[Iterable[str]]) -> str:
    """Returns text such as "31 in train, 2 in test"."""
    return ", ".join(f"{count} in {split}" for split, count in _by_split(splits).items())
