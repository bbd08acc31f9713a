"""The walk-through, executed with a tiny transformer of random weights."""

import json
from pathlib import Path

import pytest
from nbformat import NotebookNode

from featherweight import load
from tests.conftest import labeled_texts
from tests.helpers.executed import NOTEBOOKS, executed, pictures, said, warnings
from transformer_eval.random_weights import build
from transformer_eval.registry import Pretrained

SIZES = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "vocab_size": 400, "initializer_range": 0.5,
}  # fmt: skip
TEXT = "so happy and glad today"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("walk")


@pytest.fixture(scope="module")
def page(outputs: Path, tiny_data: Path) -> NotebookNode:
    model = outputs / "tiny-bert"
    texts = [text for text, _ in labeled_texts()]
    build(Pretrained("acme/tiny", "bert", SIZES), texts, ("a", "b"), model)
    return executed(
        NOTEBOOKS[1], outputs, data=tiny_data, model=model, num_train_epochs=2, batch_size=8,
        learning_rate=0.001, text=TEXT, device="cpu", name="mine", repo_id="acme/moods",
    )  # fmt: skip


def test_it_runs_without_a_word_on_red_ground(page: NotebookNode) -> None:
    assert warnings(page) == ""


def test_it_trains_as_it_is_told_and_leaves_two_runs(page: NotebookNode, outputs: Path) -> None:
    config = json.loads((outputs / "outputs" / "mine" / "config.json").read_text())
    assert (config["epochs"], config["batch_size"], config["learning_rate"]) == (2, 8, 0.001)
    assert (outputs / "outputs" / "mine-frozen" / "model.safetensors").is_file()
    log = said(page, "finetune")
    assert "epoch 1/2" in log
    assert "epoch 2/2" in log


def test_a_line_an_epoch_is_all_the_progress_that_is_shown(page: NotebookNode) -> None:
    # A bar redraws itself with carriage returns, each a line of its own in a stored page.
    assert "\r" not in said(page)
    assert "it/s" not in said(page)


def test_it_shows_how_the_text_is_tokenized(page: NotebookNode) -> None:
    assert "[CLS]" in said(page, "tokenize")
    mask = said(page, "batch").split("]")[:2]
    assert "0" not in mask[0]
    assert "0" in mask[1]


def test_it_compares_frozen_and_fine_tuned_with_the_dummy(page: NotebookNode) -> None:
    tables = said(page, "gain")
    assert all(name in tables for name in ("most frequent class", "mine-frozen", "mine "))
    assert "no difference shown" in tables or "better" in tables or "worse" in tables
    assert "mine-frozen" in said(page, "test")


@pytest.mark.parametrize("cell", ["finetune", "confusion"])
def test_it_draws(page: NotebookNode, cell: str) -> None:
    assert [picture[:4] for picture in pictures(page, cell)] == [b"\x89PNG"]


def test_the_answer_is_that_of_the_run(page: NotebookNode, outputs: Path) -> None:
    classifier = load(outputs / "outputs" / "mine", "cpu")
    answer = said(page, "predict")
    first = answer[answer.index("<tbody>") :]
    assert min(classifier.labels, key=first.index) == classifier.predict([TEXT])[0]
    assert f"{classifier.predict_proba([TEXT]).max():.1%}" in first


def test_nothing_is_sent(page: NotebookNode) -> None:
    table = said(page, "push")
    assert "acme/moods: nothing was sent" in table
    assert "model.safetensors" in table
