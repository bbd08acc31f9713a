"""Sentences that state what the figures of a data set mean for metric, tokenizer and model."""

from collections.abc import Mapping

import numpy as np

from featherweight.classifier import FloatArray, IntArray
from featherweight.data.checks import Finding, Findings
from featherweight.data.dataset import Dataset
from featherweight.data.rows import listing
from featherweight.exploration.figures import NEIGHBORS, LengthTest
from featherweight.quality.evaluation import Evaluation
from featherweight.reports.markdown import code

# The thresholds between two recommendations are judgment calls; each sentence shows its figures.
_BALANCED = 1.5  # ratio of the largest to the smallest class
_UNKNOWN = 0.05  # share of words: one in a text of twenty
_SIGNIFICANCE = 0.05
_MIXED, _SEPARATE = 0.1, 0.5  # of the way from chance to perfectly separate classes
_ROUND = 8  # a suggested --max_length is rounded up to a multiple


def describe_balance(dataset: Dataset) -> str:
    """Returns which average over the classes to use."""
    labels, n = dataset.train.labels, len(dataset.train)
    counts = np.bincount(labels, minlength=len(dataset.labels))
    largest, smallest = int(counts.argmax()), int(counts.argmin())
    frequent, rare = (code(dataset.labels[label]) for label in (largest, smallest))
    if not counts[smallest]:
        return (
            f"There are no training texts of {rare}: no model can learn this class, and its F1 "
            "counts as 0 in the macro averages."
        )
    ratio = counts[largest] / counts[smallest]
    if ratio < _BALANCED:
        return (
            f"The classes are nearly balanced (the largest has {ratio:.1f} times the texts of the "
            "smallest), so accuracy and macro-F1 will be similar."
        )
    recall = counts[largest] / n
    macro_f1 = 2 * recall / (1 + recall) / len(counts)
    return (
        f"{frequent} has {ratio:.1f} times the texts of {rare} ({counts[largest]:,} and "
        f"{counts[smallest]:,}): always predicting {frequent} would be correct for {recall:.1%} of "
        f"the training texts, at a macro-F1 of {macro_f1:.3f}. Use macro averages, which weight "
        f"all classes equally, check the F1 of {rare} separately, and try `--class_weights "
        "balanced` for it."
    )


def describe_lengths(lengths: IntArray, max_length: int) -> str:
    """Returns whether texts are short enough for a recurrent model, and where to truncate them.

    Args:
        lengths: (N,) number of words of each training text.
        max_length: Number of tokens at which the default tokenizer truncates.
    """
    median, p99, longest = np.percentile(lengths, [50, 99, 100])
    truncated = float((lengths > max_length).mean())
    facts = (
        f"The median length is {median:.0f} words, the 99th percentile {p99:.0f}, the maximum "
        f"{longest:.0f}"
    )
    fitting = _ROUND * int(np.ceil(max(p99, 1) / _ROUND))
    if truncated < 0.01:  # as the 99th percentile above
        tighter = float((lengths > fitting).mean())
        return (
            f"{facts}: short enough for a recurrent model, which reads one word per step. The "
            f"default `--max_length {max_length}` truncates {truncated:.1%} of the texts, "
            f"`--max_length {fitting}` would truncate {tighter:.1%}."
        )
    return (
        f"{facts}: the default `--max_length {max_length}` would truncate {truncated:.1%} of the "
        f"texts; `--max_length {fitting}` keeps 99% complete. A recurrent model reads one word per "
        "step and hardly remembers words that far back: also measure a transformer."
    )


def describe_lengths_by_class(test: LengthTest, medians: Mapping[str, float]) -> str:
    """Returns whether the length of a text predicts its class.

    Args:
        test: Test of the lengths by class.
        medians: Median number of words, by label.
    """
    figures = (
        f"Kruskal–Wallis H = {test.statistic:.1f}, p {_p_value(test.p_value)}; the class explains "
        f"{test.effect:.1%} of the variance of the ranks"
    )
    if test.p_value >= _SIGNIFICANCE:
        return f"No difference in length between the classes is shown ({figures})."
    shortest, longest = min(medians, key=medians.__getitem__), max(medians, key=medians.__getitem__)
    meaning = (
        "with this many texts even tiny differences are significant, and length hardly helps a "
        "model"
        if test.size == "negligible"
        else "a model can use the length alone; check that it does not rely on it"
    )
    return (
        f"The classes differ significantly in length ({figures}), with a {test.size} effect: the "
        f"medians range from {medians[shortest]:.0f} words ({code(shortest)}) to "
        f"{medians[longest]:.0f} ({code(longest)}); {meaning}."
    )


def describe_typing(shares: Mapping[str, float]) -> str:
    """Returns whether texts look as people type them.

    Args:
        shares: Share of texts that contain capitals, digits, emoji and so on.
    """
    absent = [kind for kind, share in shares.items() if not share]
    present = ", ".join(f"{kind} in {share:.1%}" for kind, share in shares.items() if share)
    if not absent:
        return f"The texts look as people type them: {present}."
    missing = " or ".join(filter(None, (", ".join(absent[:-1]), absent[-1])))
    if present:
        return f"The texts contain {present}; none contains {missing}."
    return (
        f"No text contains {missing}: the texts were cleaned and differ from what people type. The "
        "tokenizer has to normalize typed text to this form; `featherweight compare --robustness` "
        "measures how well it does."
    )


def describe_vocabulary(shares: FloatArray, target: float = 0.95) -> str:
    """Returns how many words cover most of the training texts.

    Args:
        shares: (V,) share of all words that the first 1, 2, … V words cover.
        target: The share to cover, in [0, 1].
    """
    needed = int(np.searchsorted(shares, target)) + 1
    rest = len(shares) - needed
    return (
        f"The {needed:,} most frequent of {len(shares):,} distinct words make up {target:.0%} of "
        f"the training text. The other {rest:,} would take {rest / len(shares):.0%} of the "
        f"embeddings for {1 - shares[needed - 1]:.0%} of the text."
    )


def describe_unknown_words(unknown: Mapping[str, float], pieces: float, size: int) -> str:
    """Returns which tokenizer to start with.

    Args:
        unknown: Share of the words that are unknown to the word tokenizer, by split.
        pieces: Tokens of the byte-pair tokenizer per token of the word tokenizer, on validation.
        size: Size of the word tokenizer's vocabulary.
    """
    held_out = [share for split, share in unknown.items() if split != "train"]
    shares = listing(f"{share:.1%} in {split}" for split, share in unknown.items())
    facts = f"Words outside the default vocabulary of {size:,}: {shares}"
    if max(held_out) < _UNKNOWN:
        return f"{facts}. Whole words are sufficient."
    return (
        f"{facts}. More than one word in {1 / _UNKNOWN:.0f} is unknown, possibly important ones. "
        f"Try `--tokenizer bpe`, which splits unknown words into pieces at {pieces:.2f} times the "
        "tokens, or a pretrained transformer, which has seen more words than these texts contain."
    )


def describe_findings(findings: Findings, dataset: Dataset) -> list[str]:
    """Returns how repeated texts, conflicting labels and leaks affect a measurement."""
    sentences = []
    conflicts = [
        found for found in findings.repeated if found.is_conflict and found.splits == ("train",)
    ]
    if conflicts:
        wrong = sum(map(_unlearnable, conflicts))
        sentences.append(
            f"{len(conflicts):,} training texts occur with different labels: at least {wrong} of "
            f"{len(dataset.train):,} rows ({wrong / len(dataset.train):.2%}) cannot be learned, "
            "and the labels of the other splits are probably as unreliable."
        )
    leaks = [found for found in findings.shared if found.splits[0] == "train"]
    if leaks:
        split = dataset.splits[-1]
        rows = sum(row.split == split.name for leak in leaks for row in leak.occurrences)
        conflicting = sum(leak.is_conflict for leak in leaks)
        sentences.append(
            f"{len(leaks):,} training texts also occur in another split, {conflicting:,} of them "
            f"with different labels; they are {rows / len(split):.2%} of {split.name}. With the "
            "same label they favor a model that memorizes, with a different one they penalize it: "
            "`--drop_leaks` removes them from training."
        )
    if findings.empty:
        sentences.append(f"{len(findings.empty):,} rows have no text: remove them.")
    if findings.missing_classes:
        missing = listing(
            f"{split} lacks {listing(map(code, names))}"
            for split, names in findings.missing_classes.items()
        )
        sentences.append(f"Classes without a text: {missing}.")
    return sentences or ["No repeated texts, no conflicting labels, no leaks, no empty texts."]


def describe_baselines(svm: Evaluation, most_frequent: Evaluation) -> str:
    """Returns the score that a model has to exceed.

    Args:
        svm: Evaluation of the linear model on a split.
        most_frequent: Evaluation of the most frequent class on the same split.
    """
    low, high = svm.intervals["macro_f1"]
    f1 = {label: scores["f1"] for label, scores in svm.per_class().items() if scores["support"]}
    hardest = min(f1, key=f1.__getitem__)
    return (
        f"A linear model of words and word pairs reaches a macro-F1 of "
        f"{svm.scores['macro_f1']:.3f} [{low:.3f}, {high:.3f}] on {svm.split} (n = "
        f"{len(svm.targets):,}; the most frequent class {most_frequent.scores['macro_f1']:.3f}): "
        "a model that does not exceed this has learned nothing beyond single words and pairs. The "
        f"hardest class is {code(hardest)} with an F1 of {f1[hardest]:.3f}."
    )


def describe_map(vectors: str, agreement: float, chance: float) -> str:
    """Returns how well a map separates the classes.

    Args:
        vectors: Name of the vectors in the map.
        agreement: Share of the nearest neighbors that have the class of the text.
        chance: Share expected by chance.
    """
    # 0 at chance, 1 if all neighbors are of one class.
    separation = (agreement - chance) / (1 - chance) if chance < 1 else 0.0
    steps = (("not separated", _MIXED), ("partly separated", _SEPARATE))
    verdict = next((words for words, bound in steps if separation < bound), "well separated")
    return (
        f"In the map of {vectors}, {agreement:.0%} of the {NEIGHBORS} nearest neighbors of a text "
        f"have its class; {chance:.0%} are expected by chance. The classes are {verdict}."
    )


def _unlearnable(finding: Finding) -> int:
    labels = [row.label for row in finding.occurrences]
    return len(labels) - max(map(labels.count, labels))


def _p_value(p_value: float) -> str:
    return "< 1e-99" if p_value < 1e-99 else f"= {p_value:.2g}"
