"""EDA.ipynb, executed: its figures and sentences are those of the data that it is given."""

from pathlib import Path

import numpy as np
import pytest
from nbformat import NotebookNode

from featherweight.data.dataset import DataConfig, Dataset, load_dataset
from lstm.config import TokenizerConfig
from lstm.tokenizer import UNK_ID, token_ids, train_tokenizer
from tests.helpers.executed import NOTEBOOKS, executed, pictures, said, warnings

EDA = NOTEBOOKS[0]


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory, tiny_run: Path) -> NotebookNode:
    folder = tmp_path_factory.mktemp("bundled")
    return executed(EDA, folder, weights=tiny_run, map_texts=60)


@pytest.fixture(scope="module")
def moods(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> NotebookNode:
    return executed(EDA, tmp_path_factory.mktemp("moods"), data=tiny_data)


@pytest.fixture(scope="module")
def corpus() -> Dataset:
    return load_dataset(DataConfig())


def test_it_runs_without_a_word_on_red_ground(bundled: NotebookNode, moods: NotebookNode) -> None:
    assert warnings(bundled) == ""
    assert warnings(moods) == ""


def test_it_shows_texts_of_every_class_and_split(bundled: NotebookNode, corpus: Dataset) -> None:
    samples = said(bundled, "samples")
    assert all(samples.count(f">{label} ") + samples.count(f">{label}<") for label in corpus.labels)
    assert all(f"{len(split):,}" in said(bundled, "load") for split in corpus.splits)


@pytest.mark.parametrize(
    "cell", ["classes", "lengths", "lengths-by-class", "vocabulary", "typical", "maps"]
)
def test_it_draws(bundled: NotebookNode, cell: str) -> None:
    (picture,) = pictures(bundled, cell)
    assert picture.startswith(b"\x89PNG")


def test_the_sentence_on_balance_counts_the_classes(
    bundled: NotebookNode, moods: NotebookNode, corpus: Dataset
) -> None:
    counts = np.bincount(corpus.train.labels)
    assert f"has {counts.max() / counts.min():.1f} times the texts" in said(bundled, "classes")
    assert "macro averages" in said(bundled, "classes")
    assert "nearly equal in size" in said(moods, "classes")


def test_the_sentence_on_the_tokenizer_counts_unknown_words(
    bundled: NotebookNode, moods: NotebookNode, corpus: Dataset
) -> None:
    tokenizer = train_tokenizer(corpus.train.texts, TokenizerConfig())
    assert corpus.test is not None
    rows, _ = token_ids(tokenizer, corpus.test.texts)
    unknown = sum(row.count(UNK_ID) for row in rows) / sum(map(len, rows))

    assert f"{unknown:.1%} of those of test" in said(bundled, "unknown")
    assert f"{unknown:.1%} of those of test" not in said(moods, "unknown")


def test_the_embeddings_of_a_run_stand_beside_the_bags_of_words(
    bundled: NotebookNode, moods: NotebookNode
) -> None:
    assert "embeddings of tiny" in said(bundled, "maps")
    assert "embeddings of" not in said(moods, "maps")


def test_the_page_ends_with_everything_that_it_concluded(moods: NotebookNode) -> None:
    end = said(moods, "meaning")
    for cell in ("typing", "checks", "classes", "lengths", "unknown", "alone", "maps"):
        sentences = [line for line in said(moods, cell).splitlines() if line.startswith("> ")]
        assert sentences, cell
        assert all(sentence.removeprefix("> ") in end for sentence in sentences)
