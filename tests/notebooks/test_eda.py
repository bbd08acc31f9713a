"""EDA.ipynb, executed: its figures and sentences describe the given data."""

from pathlib import Path

import numpy as np
import pytest
from nbformat import NotebookNode

from featherweight.data.dataset import DataConfig, Dataset, load_dataset
from lstm.config import TokenizerConfig
from lstm.tokenizer import UNK_ID, token_ids, train_tokenizer
from tests.helpers.executed import NOTEBOOKS, executed, output_text, pictures, warnings

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


def test_nothing_is_written_to_stderr(bundled: NotebookNode, moods: NotebookNode) -> None:
    assert warnings(bundled) == ""
    assert warnings(moods) == ""


def test_texts_of_every_class_and_split_are_shown(bundled: NotebookNode, corpus: Dataset) -> None:
    samples = output_text(bundled, "samples")
    assert all(samples.count(f">{label} ") + samples.count(f">{label}<") for label in corpus.labels)
    assert all(f"{len(split):,}" in output_text(bundled, "load") for split in corpus.splits)


def test_plots_are_drawn(bundled: NotebookNode) -> None:
    for cell in ("classes", "lengths", "lengths-by-class", "vocabulary", "typical", "maps"):
        (picture,) = pictures(bundled, cell)
        assert picture.startswith(b"\x89PNG"), cell


def test_sentence_on_balance_counts_the_classes(
    bundled: NotebookNode, moods: NotebookNode, corpus: Dataset
) -> None:
    counts = np.bincount(corpus.train.labels)
    assert f"has {counts.max() / counts.min():.1f} times the texts" in output_text(
        bundled, "classes"
    )
    assert "macro averages" in output_text(bundled, "classes")
    assert "nearly balanced" in output_text(moods, "classes")


def test_sentence_on_the_tokenizer_counts_unknown_words(
    bundled: NotebookNode, moods: NotebookNode, corpus: Dataset
) -> None:
    tokenizer = train_tokenizer(corpus.train.texts, TokenizerConfig())
    assert corpus.test is not None
    rows, _ = token_ids(tokenizer, corpus.test.texts)
    unknown = sum(row.count(UNK_ID) for row in rows) / sum(map(len, rows))

    assert f"{unknown:.1%} in test" in output_text(bundled, "unknown")
    assert f"{unknown:.1%} in test" not in output_text(moods, "unknown")


def test_embeddings_of_a_run_are_drawn_next_to_bags_of_words(
    bundled: NotebookNode, moods: NotebookNode
) -> None:
    assert "embeddings of tiny" in output_text(bundled, "maps")
    assert "embeddings of" not in output_text(moods, "maps")


def test_notebook_ends_with_all_conclusions(moods: NotebookNode) -> None:
    end = output_text(moods, "meaning")
    for cell in ("typing", "checks", "classes", "lengths", "unknown", "alone", "maps"):
        sentences = [
            line for line in output_text(moods, cell).splitlines() if line.startswith("> ")
        ]
        assert sentences, cell
        assert all(sentence.removeprefix("> ") in end for sentence in sentences)
