"""What a data set shows before anything is trained on it: lengths, words, what marks a class, maps.

A document here is the list of a text's words, as a model will read them; see `words`.
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
from featherweight.errors import DataError, UsageError

Document = Sequence[str]

# Source: Monroe, Colaresi & Quinn (2008), section 3.5.1, whose prior is as long as 500 words.
PRIOR_WORDS = 500.0
NEIGHBOURS = 10
_RAREST_PAIR = 3  # occurrences below which two words may stand together by chance
# Source: van der Maaten & Hinton (2008), Visualizing Data using t-SNE: perplexities from 5 to 50
# do, and 30 to 50 dimensions are enough to start from.
_PERPLEXITY = 30
_DIMENSIONS = 50
_FEWEST_POINTS = 4
_BATCH_SIZE = 256  # texts
_TYPED: Mapping[str, Callable[[str], object]] = {
    "capital letters": lambda text: text != text.lower(),
    "digits": re.compile(r"\d").search,
    "punctuation": lambda text: any(unicodedata.category(sign)[0] == "P" for sign in text),
    "emoji": lambda text: any(unicodedata.category(sign) == "So" for sign in text),
    "links": re.compile(r"https?://|www\.").search,
    "@names": re.compile(r"(?<!\w)@\w").search,
    "#tags": re.compile(r"(?<!\w)#\w").search,
}


def words(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[str]]:
    """Returns the documents of N texts: normalized and split as a tokenizer does, none cut."""
    return [
        [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normalized)]
        for normalized in map(tokenizer.normalizer.normalize_str, texts)
    ]


def typed_signs(texts: Sequence[str]) -> dict[str, float]:
    """Returns the share of texts, in [0, 1], that hold each kind of what people type."""
    return {
        kind: sum(bool(holds(text)) for text in texts) / len(texts)
        for kind, holds in _TYPED.items()
    }


@dataclass(frozen=True)
class LengthTest:
    """Whether lengths differ between classes, and how much.

    Attributes:
        statistic: H of Kruskal and Wallis.
        p_value: Probability of an H this large if the class had no bearing on the length.
        effect: Share of the variance of the lengths' ranks that the class explains, in [0, 1].
    """

    statistic: float
    p_value: float
    effect: float

    @property
    def size(self) -> str:
        """The effect in a word.

        Source: Cohen (1988), Statistical Power Analysis for the Behavioral Sciences, eta squared.
        """
        bounds = (("negligible", 0.01), ("small", 0.06), ("medium", 0.14))
        return next((word for word, bound in bounds if self.effect < bound), "large")


def compare_lengths(lengths: IntArray, labels: IntArray) -> LengthTest:
    """Tests whether lengths (N,) depend on class ids (N,), by their ranks.

    Ranks, since lengths are skewed. The effect is 0 on average where the class has no bearing.

    Source: Kruskal & Wallis (1952), Use of Ranks in One-Criterion Variance Analysis; the effect,
    Tomczak & Tomczak (2014), The Need to Report Effect Size Estimates Revisited, eta squared of H.
    """
    groups = [lengths[labels == label] for label in np.unique(labels)]
    n, k = len(lengths), len(groups)
    if k < 2 or n <= k or len(np.unique(lengths)) < 2:
        return LengthTest(0.0, 1.0, 0.0)
    test = kruskal(*groups)
    effect = (test.statistic - k + 1) / (n - k)
    return LengthTest(float(test.statistic), float(test.pvalue), max(float(effect), 0.0))


def vocabulary(documents: Sequence[Document]) -> list[str]:
    """Returns the different words, the most frequent first, equals by the alphabet."""
    counts = Counter(word for document in documents for word in document)
    return sorted(counts, key=lambda word: (-counts[word], word))


def coverage(known: Sequence[str], documents: Sequence[Document]) -> FloatArray:
    """Returns the share of all words of documents that the first 1, 2, … V known words are.

    Args:
        known: The V words of a vocabulary, in the order in which they would be let in.
        documents: What is read; what the last share lacks to 1 is unknown even to all V.
    """
    position = {word: index for index, word in enumerate(known)}
    places = [position.get(word, len(known)) for document in documents for word in document]
    counts = np.bincount(np.array(places, np.int64), minlength=len(known) + 1)
    return counts[:-1].cumsum() / max(counts.sum(), 1)


@dataclass(frozen=True)
class Term:
    """A word, or two that stand together, in the texts of a class.

    Attributes:
        text: The word, or both with a space.
        z: Standard deviations by which its log-odds exceed those in the other classes.
        count: How often it stands in the class.
        total: How often it stands in all classes.
    """

    text: str
    z: float
    count: int
    total: int


def pairs(documents: Sequence[Document]) -> list[list[str]]:
    """Returns the documents as the pairs of words that stand side by side in them."""
    return [[" ".join(pair) for pair in bigrams(document)] for document in documents]


def frequencies(
    documents: Sequence[Document], labels: IntArray, label_names: Sequence[str]
) -> ConditionalFreqDist:
    """Counts the terms of documents by the name of their class."""
    return ConditionalFreqDist(
        (label_names[label], term)
        for label, document in zip(labels.tolist(), documents, strict=True)
        for term in document
    )


def typical_terms(counts: ConditionalFreqDist, most: int) -> dict[str, list[Term]]:
    """Returns the terms that mark each class off from all others together, the strongest first.

    The score is the difference of the log-odds of a term in the class and out of it, in standard
    deviations. Both sides start from a prior of 500 words in the proportions of the whole, which
    holds back rare terms, that plain ratios put first, and frequent ones that all classes share.

    Source: Monroe, Colaresi & Quinn (2008), Fightin' Words: Lexical Feature Selection and
    Evaluation for Identifying the Content of Political Conflict, section 3.5.1.

    Args:
        counts: Of terms, by class.
        most: How many terms of a class; those with a score above 0 only.
    """
    totals: Counter[str] = Counter()
    for count in counts.values():
        totals.update(count)
    terms = sorted(totals)
    if len(terms) < 2:  # no odds of one against others
        return {label: [] for label in counts}
    everywhere = np.array([totals[term] for term in terms], float)  # (V,)
    prior = PRIOR_WORDS * everywhere / everywhere.sum()
    typical = {}
    for label, count in counts.items():
        inside = np.array([count[term] for term in terms], float)
        scores = _log_odds(inside + prior) - _log_odds(everywhere - inside + prior)
        scores /= np.sqrt(1 / (inside + prior) + 1 / (everywhere - inside + prior))
        best = [index for index in np.argsort(-scores, kind="stable")[:most] if scores[index] > 0]
        typical[label] = [
            Term(terms[it], float(scores[it]), count[terms[it]], totals[terms[it]]) for it in best
        ]
    return typical


def _log_odds(counts: FloatArray) -> FloatArray:
    odds: FloatArray = np.log(counts / (counts.sum() - counts))
    return odds


def collocations(documents: Sequence[Document], most: int) -> list[tuple[str, float]]:
    """Returns pairs of words that stand side by side more often than by chance, and how surely.

    The figure is Dunning's likelihood ratio. Pairs that avoid each other have a high one too;
    they are left out, as are punctuation and pairs that stand fewer than 3 times.

    Source: Dunning (1993), Accurate Methods for the Statistics of Surprise and Coincidence.
    """
    finder = BigramCollocationFinder.from_documents(documents)
    finder.apply_freq_filter(_RAREST_PAIR)
    finder.apply_word_filter(lambda word: not any(map(str.isalnum, word)))
    attracted = {pair for pair, gain in finder.score_ngrams(BigramAssocMeasures.pmi) if gain > 0}
    scored = finder.score_ngrams(BigramAssocMeasures.likelihood_ratio)
    return [(" ".join(pair), score) for pair, score in scored if pair in attracted][:most]


def bag_of_words(train: Sequence[Document], documents: Sequence[Document]) -> FloatArray:
    """Returns TF-IDF vectors (N, 50 at most) of documents, learned from those of train.

    Source: Deerwester et al. (1990), Indexing by Latent Semantic Analysis.

    Raises:
        DataError: The training texts have a single word.
    """
    vectorizer = TfidfVectorizer(analyzer=list, sublinear_tf=True)
    learned = vectorizer.fit_transform(train)
    dimensions = min(_DIMENSIONS, learned.shape[1])
    if dimensions < 2:
        raise DataError("the training texts have a single word: nothing to draw")
    reduction = TruncatedSVD(dimensions, random_state=0).fit(learned)
    vectors: FloatArray = reduction.transform(vectorizer.transform(documents))
    return vectors


@runtime_checkable
class Embedder(Protocol):
    """A classifier whose last layer reads one vector a text."""

    def encode(self, texts: Sequence[str]) -> Batch:
        """Turns B texts into one batch."""
        ...

    def embed(self, batch: Batch) -> FloatArray:
        """Returns the vectors (B, F) of a batch."""
        ...


def learned_vectors(classifier: Classifier, texts: Sequence[str]) -> FloatArray:
    """Returns the vectors (N, F) that a classifier makes of N texts before it answers.

    Raises:
        UsageError: It gives answers only.
    """
    if not isinstance(classifier, Embedder):
        raise UsageError(
            f"{classifier.name} gives answers and no embeddings: name a run that PyTorch computes"
        )
    batches = list(batches_by_length([len(text) for text in texts], _BATCH_SIZE))
    vectors = [classifier.embed(classifier.encode([texts[i] for i in batch])) for batch in batches]
    return np.concatenate(vectors)[np.argsort(np.concatenate(batches))]


def tsne_map(vectors: FloatArray, seed: int = 0) -> FloatArray:
    """Lays vectors (N, F) out as points (N, 2), so that neighbors stay neighbors (t-SNE).

    Raises:
        DataError: There are fewer than 4.
    """
    if len(vectors) < _FEWEST_POINTS:
        raise DataError(f"{len(vectors)} texts make no map: it takes {_FEWEST_POINTS} or more")
    tsne = TSNE(
        perplexity=min(_PERPLEXITY, (len(vectors) - 1) / 3),
        metric="cosine",
        init="pca",
        random_state=seed,
    )
    points: FloatArray = tsne.fit_transform(vectors)
    return points


def like_neighbors(points: FloatArray, labels: IntArray) -> tuple[float, float]:
    """Says in a figure what a map shows to the eye.

    Args:
        points: (N, 2), at least two of them.
        labels: (N,) class ids.

    Returns:
        The share of the 10 nearest neighbors of a text, on average, that are of its class, and
        the share to expect by chance; both in [0, 1].
    """
    nearest = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(points) - 1)).fit(points)
    neighbors = nearest.kneighbors(return_distance=False)  # (N, 10), without the points themselves
    alike = (labels[neighbors] == labels[:, np.newaxis]).mean()
    counts = np.bincount(labels)
    chance = (counts * (counts - 1)).sum() / (len(labels) * (len(labels) - 1))
    return float(alike), float(chance)
