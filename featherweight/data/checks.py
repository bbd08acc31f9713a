"""Data checks: repeated texts, conflicting labels, leaks between splits, empty texts.

Across splits, texts are also the same if only their spelling differs; see `normal_form`.
"""

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any

from featherweight.data.dataset import Dataset
from featherweight.data.rows import listing
from featherweight.errors import DataError

_RETWEET = re.compile(r"\A(?:rt @\w+ ?:? ?)+")
_LINK = re.compile(r"(?:https?://|www\.)\S+")
_NAME = re.compile(r"(?<!\w)@\w+")
# Control and format characters but white space, and other characters without an appearance.
_INVISIBLE = re.compile(
    "[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
_ENDING = " .,;:!?。'\"’”"


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One row of a split."""

    split: str
    row: int  # position in the split, from 1
    label: str
    text: str  # without surrounding white space


@dataclass(frozen=True)
class Finding:
    """Rows with the same text or, up to its spelling, the same; train, validation, test."""

    occurrences: tuple[Occurrence, ...]

    @property
    def text(self) -> str:
        """The text of the first row."""
        return self.occurrences[0].text

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that contain the text."""
        return tuple(dict.fromkeys(occurrence.split for occurrence in self.occurrences))

    @property
    def is_conflict(self) -> bool:
        """Whether the rows have different labels."""
        return len({occurrence.label for occurrence in self.occurrences}) > 1

    def spellings(self) -> list["Finding"]:
        """Returns the rows of each distinct text."""
        rows: dict[str, list[Occurrence]] = {}
        for occurrence in self.occurrences:
            rows.setdefault(occurrence.text, []).append(occurrence)
        return [Finding(tuple(same)) for same in rows.values()]


@dataclass(frozen=True)
class Findings:
    """What `check` found.

    Attributes:
        repeated: Texts that occur more than once in a split, with their rows in that split.
        conflicting: Texts with more than one label in any spelling, with their rows in all splits.
        shared: Texts that occur in more than one split in any spelling, with all their rows.
        empty: Rows without a visible text.
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
            alike = sum(not any(s.is_conflict for s in f.spellings()) for f in self.conflicting)
            lines.append(
                f"texts with different labels, over all splits: {len(self.conflicting)}"
                + _in_other_spelling(alike)
            )
        leaks = [finding for finding in self.shared if finding.splits[0] == "train"]
        if leaks:
            lines.append(
                "training texts that also occur in other splits: "
                f"{_counts(leak.splits[1:] for leak in leaks)}{_in_other_spelling(_alike(leaks))}; "
                "--drop_leaks removes them from train"
            )
        others = [finding for finding in self.shared if finding.splits[0] != "train"]
        if others:
            lines.append(
                f"texts in both validation and test: {len(others)}"
                + _in_other_spelling(_alike(others))
            )
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
    forms = [[normal_form(text) for text in split.texts] for split in dataset.splits]
    counts = Counter(chain.from_iterable(forms))
    counts[""] += 1  # a single empty text is a finding, too
    occurrences: dict[str, list[Occurrence]] = {}
    for split, split_forms in zip(dataset.splits, forms, strict=True):
        for i, form in enumerate(split_forms):
            if counts[form] > 1:
                label = dataset.labels[split.labels[i]]
                occurrence = Occurrence(split.name, i + 1, label, split.texts[i].strip())
                occurrences.setdefault(form, []).append(occurrence)
    empty = tuple(occurrences.pop("", ()))
    found = [Finding(tuple(rows)) for rows in occurrences.values()]
    return Findings(
        repeated=tuple(_within_a_split(chain.from_iterable(f.spellings() for f in found))),
        conflicting=tuple(finding for finding in found if finding.is_conflict),
        shared=tuple(finding for finding in found if len(finding.splits) > 1),
        empty=empty,
        missing_classes=_missing_classes(dataset),
    )


def drop_leaks(dataset: Dataset) -> tuple[Dataset, int, int]:
    """Removes from train the texts that also occur in validation or test, in any spelling.

    Returns:
        The data set without them, the number of rows removed because of the same text, and of
        those removed because of another spelling of it.

    Raises:
        DataError: No training text remains.
    """
    held_out = {text.strip() for split in dataset.splits[1:] for text in split.texts}
    held_out_forms = set(map(normal_form, held_out)) - {""}
    train = dataset.train
    kept = [normal_form(text) not in held_out_forms for text in train.texts]
    rows = [row for row, is_kept in enumerate(kept) if is_kept]
    if not rows:
        raise DataError(f"every training text of {dataset.name} also occurs in validation or test")
    dropped = [text.strip() for text, is_kept in zip(train.texts, kept, strict=True) if not is_kept]
    same = sum(text in held_out for text in dropped)
    remaining = replace(
        train, texts=tuple(train.texts[row] for row in rows), labels=train.labels[rows]
    )
    return replace(dataset, train=remaining), same, len(dropped) - same


def normal_form(text: str) -> str:
    """Returns a text without what differs between copies of it, "" if nothing is visible.

    HTML entities are decoded, invisible characters, "RT @name:" at the start and punctuation at
    the end dropped, links and @names replaced by one placeholder each, case and white space
    unified.
    """
    if "&" in text:
        text = html.unescape(html.unescape(text))  # "&amp;lt;" is escaped twice
    if not (text.isascii() and text.isprintable()):
        # The blank of the Braille patterns does not count as white space.
        text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text).replace("\u2800", " "))
    text = " ".join(text.casefold().split())
    if "://" in text or "www." in text:
        text = _LINK.sub("<url>", text)
    if "@" in text:
        text = _NAME.sub("<user>", _RETWEET.sub("", text) or text)
    return text.rstrip(_ENDING) or text


def _alike(shared: Iterable[Finding]) -> int:
    """Returns the number of findings whose first split shares no exact text with another one."""
    return sum(
        all(
            len(spelling.splits) == 1 or spelling.splits[0] != finding.splits[0]
            for spelling in finding.spellings()
        )
        for finding in shared
    )


def _in_other_spelling(count: int) -> str:
    return f" ({count} of them in other spelling)" if count else ""


def _within_a_split(findings: Iterable[Finding]) -> Iterator[Finding]:
    for finding in findings:
        for split in finding.splits:
            rows = tuple(row for row in finding.occurrences if row.split == split)
            if len(rows) > 1:
                yield Finding(rows)


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
