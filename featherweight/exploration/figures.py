"""Statistics of a data set: lengths, vocabulary, typical terms of a class, and 2-D maps.

A document is the list of the words of a text, as the LSTM reads them; see `words`.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from nltk import ConditionalFreqDist, bigrams
from nltk.collocations import BigramAssocMeasures, BigramCollocationFinder
from scipy.stats import kruskal
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from tokenizers import Tokenizer

from featherweight.classifier import Batch, Classifier, FloatArray, IntArray, batches_by_length
from featherweight.data.texts import as_texts
from featherweight.errors import DataError, UsageError

Document = Sequence[str]

# Size of the prior, in words.
# Source: Monroe, Colaresi & Quinn (2008), section 3.5.1.
PRIOR_WORDS = 500.0
NEIGHBORS = 10
_MIN_PAIR_COUNT = 3  # rarer pairs of words may be adjacent by chance
# Source: van der Maaten & Hinton (2008), Visualizing Data using t-SNE: perplexities from 5 to 50,
# and an input reduced to 30 to 50 dimensions.
_PERPLEXITY = 30
_DIMENSIONS = 50
_MIN_POINTS = 4
_BATCH_SIZE = 256  # texts
_TYPED: Mapping[str, Callable[[str], object]] = {
    "capital letters": lambda text: text != text.lower(),
    "digits": re.compile(r"\d").search,
    "punctuation": lambda text: any(
        unicodedata.category(character)[0] == "P" for character in text
    ),
    "emoji": lambda text: any(unicodedata.category(character) == "So" for character in text),
    "links": re.compile(r"https?://|www\.").search,
    "@names": re.compile(r"(?<!\w)@\w").search,
    "#tags": re.compile(r"(?<!\w)#\w").search,
}


def words(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[str]]:
    """Returns the documents of N texts, normalized and split by a tokenizer, not truncated."""
    return [
        [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normalized)]
        for normalized in map(tokenizer.normalizer.normalize_str, texts)
    ]


def typed_signs(texts: Sequence[str]) -> dict[str, float]:
    """Returns the share of texts, in [0, 1], that contain capitals, digits, emoji and so on."""
    return {
        kind: sum(bool(contains(text)) for text in texts) / len(texts)
        for kind, contains in _TYPED.items()
    }


@dataclass(frozen=True)
class LengthTest:
    """Result of a test whether lengths differ between classes.

    Attributes:
        statistic: H of the Kruskal-Wallis test.
        p_value: Probability of an H this large if lengths do not depend on the class.
        effect: Share of the variance of the lengths' ranks that the class explains, in [0, 1].
    """

    statistic: float
    p_value: float
    effect: float

    @property
    def size(self) -> str:
        """The size of the effect: negligible, small, medium or large.

        Source: Cohen (1988), Statistical Power Analysis for the Behavioral Sciences, eta squared.
        """
        bounds = (("negligible", 0.01), ("small", 0.06), ("medium", 0.14))
        return next((word for word, bound in bounds if self.effect < bound), "large")


def compare_lengths(lengths: IntArray, labels: IntArray) -> LengthTest:
    """Tests whether lengths (N,) depend on class ids (N,).

    The test uses ranks because lengths are skewed. The effect is 0 on average if lengths do not
    depend on the class.

    Source: Kruskal & Wallis (1952), Use of Ranks in One-Criterion Variance Analysis; Tomczak &
    Tomczak (2014), The Need to Report Effect Size Estimates Revisited, for eta squared of H.
    """
    groups = [lengths[labels == label] for label in np.unique(labels)]
    n, k = len(lengths), len(groups)
    if k < 2 or n <= k or len(np.unique(lengths)) < 2:
        return LengthTest(0.0, 1.0, 0.0)
    test = kruskal(*groups)
    effect = (test.statistic - k + 1) / (n - k)
    return LengthTest(float(test.statistic), float(test.pvalue), max(float(effect), 0.0))


def vocabulary(documents: Sequence[Document]) -> list[str]:
    """Returns the distinct words, the most frequent first, ties in alphabetical order."""
    counts = Counter(word for document in documents for word in document)
    return sorted(counts, key=lambda word: (-counts[word], word))


def coverage(known: Sequence[str], documents: Sequence[Document]) -> FloatArray:
    """Returns the share of the words in documents that the first 1, 2, … V known words cover.

    Args:
        known: The V words of a vocabulary, the most frequent first.
        documents: The documents to cover.
    """
    position = {word: index for index, word in enumerate(known)}
    ranks = [position.get(word, len(known)) for document in documents for word in document]
    counts = np.bincount(np.array(ranks, np.int64), minlength=len(known) + 1)
    return counts[:-1].cumsum() / max(counts.sum(), 1)


@dataclass(frozen=True)
class Term:
    """A word or a pair of adjacent words in the texts of a class.

    Attributes:
        text: The word, or both words with a space.
        z: Difference of its log-odds from the other classes, in standard deviations.
        count: Occurrences in the class.
        total: Occurrences in all classes.
    """

    text: str
    z: float
    count: int
    total: int


def pairs(documents: Sequence[Document]) -> list[list[str]]:
    """Returns the pairs of adjacent words of each document."""
    return [[" ".join(pair) for pair in bigrams(document)] for document in documents]


def frequencies(
    documents: Sequence[Document], labels: IntArray, label_names: Sequence[str]
) -> ConditionalFreqDist:
    """Counts the terms of documents by label name."""
    return ConditionalFreqDist(
        (label_names[label], term)
        for label, document in zip(labels.tolist(), documents, strict=True)
        for term in document
    )


def typical_terms(counts: ConditionalFreqDist, max_terms: int) -> dict[str, list[Term]]:
    """Returns the terms that distinguish each class from the others, the strongest first.

    The score is the difference between the log-odds of a term inside and outside the class, in
    standard deviations. An informative prior of 500 words, in the proportions of the whole data,
    ranks down both rare terms and frequent terms that all classes share.

    Source: Monroe, Colaresi & Quinn (2008), Fightin' Words: Lexical Feature Selection and
    Evaluation for Identifying the Content of Political Conflict, section 3.5.1.

    Args:
        counts: Counts of terms by label name.
        max_terms: Maximum number of terms per class; only scores above 0 are returned.
    """
    totals: Counter[str] = Counter()
    for count in counts.values():
        totals.update(count)
    terms = sorted(totals)
    if len(terms) < 2:  # the odds are not defined
        return {label: [] for label in counts}
    index_of = {term: index for index, term in enumerate(terms)}
    everywhere = np.array([totals[term] for term in terms], float)  # (V,)
    prior = PRIOR_WORDS * everywhere / everywhere.sum()
    typical = {}
    for label, count in counts.items():
        inside = np.zeros(len(terms))
        for term, occurrences in count.items():
            inside[index_of[term]] = occurrences
        scores = _log_odds(inside + prior) - _log_odds(everywhere - inside + prior)
        scores /= np.sqrt(1 / (inside + prior) + 1 / (everywhere - inside + prior))
        positive = np.flatnonzero(scores > 0)
        best = positive[np.argsort(-scores[positive], kind="stable")][:max_terms].tolist()
        typical[label] = [
            Term(terms[index], float(scores[index]), count[terms[index]], totals[terms[index]])
            for index in best
        ]
    return typical


def _log_odds(counts: FloatArray) -> FloatArray:
    return np.log(counts / (counts.sum() - counts))


def collocations(documents: Sequence[Document], max_pairs: int) -> list[tuple[str, float]]:
    """Returns pairs of words that are adjacent more often than by chance, with their scores.

    The score is Dunning's likelihood ratio. It is also high for pairs that occur less often than by
    chance; these are left out, as are punctuation and pairs with fewer than 3 occurrences.

    Source: Dunning (1993), Accurate Methods for the Statistics of Surprise and Coincidence.
    """
    finder = BigramCollocationFinder.from_documents(documents)
    finder.apply_freq_filter(_MIN_PAIR_COUNT)
    finder.apply_word_filter(lambda word: not any(map(str.isalnum, word)))
    attracted = {pair for pair, gain in finder.score_ngrams(BigramAssocMeasures.pmi) if gain > 0}
    scored = finder.score_ngrams(BigramAssocMeasures.likelihood_ratio)
    return [(" ".join(pair), score) for pair, score in scored if pair in attracted][:max_pairs]


def bag_of_words(train: Sequence[Document], documents: Sequence[Document]) -> FloatArray:
    """Returns TF-IDF vectors of documents (N, D), D at most 50, fitted on the training documents.

    Source: Deerwester et al. (1990), Indexing by Latent Semantic Analysis.

    Raises:
        DataError: The training texts have a single distinct word.
    """
    vectorizer = TfidfVectorizer(analyzer=list, sublinear_tf=True)
    fitted = vectorizer.fit_transform(train)
    dimensions = min(_DIMENSIONS, fitted.shape[1])
    if dimensions < 2:
        raise DataError("the training texts have a single word: there is nothing to draw")
    reduction = TruncatedSVD(dimensions, random_state=0).fit(fitted)
    return reduction.transform(vectorizer.transform(documents))


@runtime_checkable
class Embedder(Protocol):
    """A classifier whose last layer takes one vector per text."""

    def embed(self, batch: Batch) -> FloatArray:
        """Returns the vectors (B, F) of a batch."""
        ...


def learned_vectors(classifier: Classifier, texts: Sequence[str]) -> FloatArray:
    """Returns the inputs (N, F) of the last layer of a classifier for N texts.

    Raises:
        UsageError: The classifier has no embeddings.
    """
    if not isinstance(classifier, Embedder):
        raise UsageError(f"{classifier.name} has no embeddings: give a run that PyTorch computes")
    texts = as_texts(texts)
    batches = list(batches_by_length([len(text) for text in texts], _BATCH_SIZE))
    vectors = [classifier.embed(classifier.encode([texts[i] for i in batch])) for batch in batches]
    return np.concatenate(vectors)[np.argsort(np.concatenate(batches))]


def tsne_map(vectors: FloatArray, seed: int = 0) -> FloatArray:
    """Projects vectors (N, F) to points (N, 2) with t-SNE, which preserves neighborhoods.

    Raises:
        DataError: There are fewer than 4 vectors.
    """
    if len(vectors) < _MIN_POINTS:
        raise DataError(f"a map needs at least {_MIN_POINTS} texts, not {len(vectors)}")
    perplexity = min(_PERPLEXITY, (len(vectors) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, metric="cosine", init="pca", random_state=seed)
    return tsne.fit_transform(vectors)


def neighbor_agreement(points: FloatArray, labels: IntArray) -> tuple[float, float]:
    """Measures how well a map separates the classes.

    Args:
        points: (N, 2) with N at least 2.
        labels: (N,) class ids.

    Returns:
        The mean share of the 10 nearest neighbors of a text that have its class, and the share
        expected by chance; both in [0, 1].
    """
    nearest = NearestNeighbors(n_neighbors=min(NEIGHBORS, len(points) - 1)).fit(points)
    neighbors = nearest.kneighbors(return_distance=False)  # (N, 10), without the points themselves
    same = (labels[neighbors] == labels[:, np.newaxis]).mean()
    counts = np.bincount(labels)
    chance = (counts * (counts - 1)).sum() / (len(labels) * (len(labels) - 1))
    return float(same), float(chance)
