"""The walkthrough, executed with a tiny transformer with random weights."""

import json
from pathlib import Path

import pytest
from nbformat import NotebookNode

from featherweight import load
from tests.conftest import labeled_texts
from tests.helpers.executed import NOTEBOOKS, executed, output_text, pictures, warnings
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


def test_nothing_is_written_to_stderr(page: NotebookNode) -> None:
    assert warnings(page) == ""


def test_parameters_reach_the_two_runs(page: NotebookNode, outputs: Path) -> None:
    config = json.loads((outputs / "outputs" / "mine" / "config.json").read_text())
    assert (config["epochs"], config["batch_size"], config["learning_rate"]) == (2, 8, 0.001)
    assert (outputs / "outputs" / "mine-frozen" / "model.safetensors").is_file()
    log = output_text(page, "finetune")
    assert "epoch 1/2" in log
    assert "epoch 2/2" in log


def test_progress_is_one_line_per_epoch(page: NotebookNode) -> None:
    # A progress bar would be stored as many lines, one per carriage return.
    assert "\r" not in output_text(page)
    assert "it/s" not in output_text(page)


def test_tokens_and_attention_mask_are_shown(page: NotebookNode) -> None:
    assert "[CLS]" in output_text(page, "tokenize")
    mask = output_text(page, "batch").split("]")[:2]
    assert "0" not in mask[0]
    assert "0" in mask[1]


def test_frozen_and_fine_tuned_models_are_compared_with_the_baseline(page: NotebookNode) -> None:
    tables = output_text(page, "gain")
    assert all(name in tables for name in ("most frequent class", "mine-frozen", "mine "))
    assert "no difference shown" in tables or "better" in tables or "worse" in tables
    assert "mine-frozen" in output_text(page, "test")


def test_plots_are_drawn(page: NotebookNode) -> None:
    for cell in ("finetune", "confusion"):
        assert [picture[:4] for picture in pictures(page, cell)] == [b"\x89PNG"], cell


def test_prediction_is_that_of_the_run(page: NotebookNode, outputs: Path) -> None:
    classifier = load(outputs / "outputs" / "mine", "cpu")
    table = output_text(page, "predict")
    first = table[table.index("<tbody>") :]
    assert min(classifier.labels, key=first.index) == classifier.predict([TEXT])[0]
    assert f"{classifier.predict_proba([TEXT]).max():.1%}" in first


def test_nothing_is_sent(page: NotebookNode) -> None:
    table = output_text(page, "push")
    assert "acme/moods: nothing was sent" in table
    assert "model.safetensors" in table
