"""What the figures of a data set mean for metric, tokenizer and model, in sentences from them."""

from collections.abc import Mapping

import numpy as np

from featherweight.classifier import FloatArray, IntArray
from featherweight.data.checks import Finding, Findings
from featherweight.data.dataset import Dataset
from featherweight.data.rows import listing
from featherweight.exploration.figures import NEIGHBOURS, LengthTest
from featherweight.quality.evaluation import Evaluation

# Where one advice ends and the next begins is a judgment; the figures stand in each sentence.
_BALANCED = 1.5  # times as many texts of the largest class as of the smallest
_UNKNOWN = 0.05  # share of the words: one in a text of twenty
_SIGNIFICANCE = 0.05
_MIXED, _APART = 0.1, 0.5  # of the way from chance to classes that never meet
_ROUND = 8  # tokens to which a --max_length is rounded up


def on_balance(dataset: Dataset) -> str:
    """Says which average of the classes to look at."""
    labels, n = dataset.train.labels, len(dataset.train)
    counts = np.bincount(labels, minlength=len(dataset.labels))
    largest, smallest = int(counts.argmax()), int(counts.argmin())
    if not counts[smallest]:
        return (
            f"No training text is {_name(dataset, smallest)}: no model can learn it, and its F1 "
            "counts as 0 in the macro averages."
        )
    ratio = counts[largest] / counts[smallest]
    if ratio < _BALANCED:
        return (
            f"The classes are nearly equal in size (the largest has {ratio:.1f} times the texts of "
            "the smallest): accuracy and macro-F1 will tell the same."
        )
    recall = counts[largest] / n
    macro_f1 = 2 * recall / (1 + recall) / len(counts)
    return (
        f"{_name(dataset, largest)} has {ratio:.1f} times the texts of {_name(dataset, smallest)} "
        f"({counts[largest]:,} against {counts[smallest]:,}): always answering "
        f"{_name(dataset, largest)} would be right for {recall:.1%} of the training texts, at a "
        f"macro-F1 of {macro_f1:.3f}. Judge by the macro averages, which count each class alike, "
        f"look at the F1 of {_name(dataset, smallest)} by itself, and see whether "
        "`--class_weights balanced` helps it."
    )


def on_length(lengths: IntArray, max_length: int) -> str:
    """Says whether texts are short enough for a recurrent model, and where to cut them.

    Args:
        lengths: (N,) words of each training text.
        max_length: Tokens after which the default tokenizer cuts.
    """
    median, p99, longest = np.percentile(lengths, [50, 99, 100])
    cut = float((lengths > max_length).mean())
    facts = (
        f"Half of the texts have at most {median:.0f} words, 99% at most {p99:.0f}, "
        f"the longest {longest:.0f}"
    )
    fitting = _ROUND * int(np.ceil(max(p99, 1) / _ROUND))
    if cut < 0.01:  # the 99% above
        tighter = float((lengths > fitting).mean())
        return (
            f"{facts}: short enough for a recurrent model, which reads a word a step. The default "
            f"`--max_length {max_length}` cuts {cut:.1%} of them, `--max_length {fitting}` would "
            f"cut {tighter:.1%}."
        )
    return (
        f"{facts}: the default `--max_length {max_length}` would cut {cut:.1%} of them, and it "
        f"takes `--max_length {fitting}` to read 99% whole. A recurrent model reads a word a step "
        "and hardly remembers what stands that far back: measure a transformer beside it."
    )


def on_length_by_class(test: LengthTest, medians: Mapping[str, float]) -> str:
    """Says whether the length gives the class away.

    Args:
        test: Of the lengths by class.
        medians: Words of half of a class's texts at most, by label.
    """
    figures = (
        f"Kruskal–Wallis H = {test.statistic:.1f}, p {_p_value(test.p_value)}; the class explains "
        f"{test.effect:.1%} of the variance of the ranks"
    )
    if test.p_value >= _SIGNIFICANCE:
        return f"No difference in length between the classes is shown ({figures})."
    shortest, longest = min(medians, key=medians.__getitem__), max(medians, key=medians.__getitem__)
    meaning = (
        "with so many texts even trifles show, and a model hardly gains by the length"
        if test.size == "negligible"
        else "a model can gain by the length alone; see that it does not live on it"
    )
    return (
        f"The classes differ in length beyond chance ({figures}), a {test.size} effect: the "
        f"medians run from {medians[shortest]:.0f} words (`{shortest}`) to "
        f"{medians[longest]:.0f} (`{longest}`); {meaning}."
    )


def on_typing(shares: Mapping[str, float]) -> str:
    """Says whether texts look as people type them.

    Args:
        shares: Of texts that hold a kind of sign, by kind.
    """
    absent = [kind for kind, share in shares.items() if not share]
    there = ", ".join(f"{kind} in {share:.1%}" for kind, share in shares.items() if share)
    if not absent:
        return f"The texts look as people type them: {there}."
    none = " or ".join(filter(None, (", ".join(absent[:-1]), absent[-1])))
    if there:
        return f"Of what people type the texts hold {there}; none holds {none}."
    return (
        f"No text holds any {none}: they were cleaned, and what people type looks different. The "
        "tokenizer has to bring it to this form; "
        "`featherweight compare --robustness` shows how far it does."
    )


def on_vocabulary(shares: FloatArray, most: float = 0.95) -> str:
    """Says how many words it takes to read most of the training texts.

    Args:
        shares: (V,) of all words that the first 1, 2, … V words are.
        most: The share to reach, in [0, 1].
    """
    needed = int(np.searchsorted(shares, most)) + 1
    rest = len(shares) - needed
    return (
        f"The {needed:,} most frequent of {len(shares):,} different words are {most:.0%} of all "
        f"that is read in training. The other {rest:,} would be {rest / len(shares):.0%} of the "
        f"embeddings and are {1 - shares[needed - 1]:.0%} of the reading."
    )


def on_unknown_words(unknown: Mapping[str, float], pieces: float, size: int) -> str:
    """Says which tokenizer to begin with.

    Args:
        unknown: Share of the words that the word tokenizer does not know, by split.
        pieces: Tokens of the byte-pair tokenizer for each of the word tokenizer, in validation.
        size: Entries of the word tokenizer's vocabulary.
    """
    held_out = {split: share for split, share in unknown.items() if split != "train"}
    shares = " and ".join(f"{share:.1%} of those of {split}" for split, share in held_out.items())
    facts = (
        f"{unknown['train']:.1%} of the words of train, {shares} are not among the {size:,} "
        "of the default tokenizer"
    )
    if max(held_out.values()) < _UNKNOWN:
        return f"{facts}: whole words will do."
    return (
        f"{facts}: more than one in {1 / _UNKNOWN:.0f}, and what a text is about may be among "
        f"them. Try `--tokenizer bpe`, which reads unknown words in pieces at {pieces:.2f} times "
        "the tokens, or a pretrained transformer, which has seen more words than these texts hold."
    )


def on_findings(findings: Findings, dataset: Dataset) -> list[str]:
    """Says what repeated texts, conflicting labels and leaks do to a measurement."""
    sentences = []
    conflicts = [it for it in findings.repeated if it.is_conflict and it.splits == ("train",)]
    if conflicts:
        lost = sum(map(_unlearnable, conflicts))
        sentences.append(
            f"{len(conflicts):,} training texts stand there with different labels: at least {lost} "
            f"of {len(dataset.train):,} rows ({lost / len(dataset.train):.2%}) cannot be learned, "
            "and labels of the other splits will be as doubtful."
        )
    leaks = [it for it in findings.shared if it.splits[0] == "train"]
    if leaks:
        split = dataset.splits[-1]
        rows = sum(row.split == split.name for leak in leaks for row in leak.occurrences)
        other = sum(leak.is_conflict for leak in leaks)
        sentences.append(
            f"{len(leaks):,} training texts stand in another split too, {other:,} of them with "
            f"different labels; they are {rows / len(split):.2%} of {split.name}. With the same "
            "label they flatter a model that remembers, with another they punish it: "
            "`--drop_leaks` removes them from training."
        )
    if findings.empty:
        sentences.append(f"{len(findings.empty):,} rows have no text: leave them out.")
    if findings.missing_classes:
        lacking = listing(
            f"{split} lacks {listing(f'`{name}`' for name in names)}"
            for split, names in findings.missing_classes.items()
        )
        sentences.append(f"Classes without a text: {lacking}.")
    return sentences or ["No repeated texts, no conflicting labels, no leaks, no empty texts."]


def on_words_alone(svm: Evaluation, dummy: Evaluation) -> str:
    """Says what a model has to beat.

    Args:
        svm: What a bag of words answers on a split.
        dummy: What the most frequent class is worth there.
    """
    low, high = svm.intervals["macro_f1"]
    return (
        f"Words and pairs of words alone reach a macro-F1 of {svm.scores['macro_f1']:.3f} "
        f"[{low:.3f}, {high:.3f}] on {svm.split} (n = {len(svm.targets):,}; the most frequent "
        f"class {dummy.scores['macro_f1']:.3f}): a model that does not beat this has learned "
        f"nothing that they do not say. Hardest is `{_hardest(svm)}` with an F1 of "
        f"{svm.per_class()[_hardest(svm)]['f1']:.3f}."
    )


def on_map(what: str, alike: float, chance: float) -> str:
    """Says in words what a map shows to the eye.

    Args:
        what: The vectors that were drawn.
        alike: Share of the nearest neighbors that are of a text's class.
        chance: The share to expect by chance.
    """
    # 0 by chance, 1 where all neighbors are of one class.
    order = (alike - chance) / (1 - chance) if chance < 1 else 0.0
    steps = (("not told apart", _MIXED), ("told apart in part", _APART))
    verdict = next((words for words, bound in steps if order < bound), "told apart")
    return (
        f"In the map of {what}, {alike:.0%} of the {NEIGHBOURS} nearest neighbors of a text are "
        f"of its class, by chance {chance:.0%} would be: by nearness the classes are {verdict}."
    )


def _name(dataset: Dataset, label: int) -> str:
    return f"`{dataset.labels[label]}`"


def _unlearnable(finding: Finding) -> int:
    labels = [row.label for row in finding.occurrences]
    return len(labels) - max(map(labels.count, labels))


def _hardest(evaluation: Evaluation) -> str:
    scores = evaluation.per_class()
    there = [label for label in scores if scores[label]["support"]]
    return min(there, key=lambda label: scores[label]["f1"])


def _p_value(p_value: float) -> str:
    return "< 1e-99" if p_value < 1e-99 else f"= {p_value:.2g}"
