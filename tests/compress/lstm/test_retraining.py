from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress.config import RetrainingConfig
from compress.lstm import retraining
from compress.lstm.retraining import encoded, retrain
from featherweight.data.dataset import Dataset, Split
from featherweight.errors import WeightsError
from featherweight.quality import evaluation
from featherweight.run import CHECKPOINT
from lstm import fit as fitting
from lstm.checkpoint import Progress
from lstm.classifier import TextClassifier
from lstm.projection import masked
from lstm.tokenizer import UNK_ID

TEXTS = ["so happy 😂", "", "zzz", "i miss my dog, i feel so alone"]
CONFIG = RetrainingConfig(retraining_epochs=3, retraining_rate=0.02)


@pytest.fixture
def histories(monkeypatch: pytest.MonkeyPatch) -> list[list[dict[str, Any]]]:
    """Records the history of each training."""
    recorded: list[list[dict[str, Any]]] = []

    def fit(*args: Any, **kwargs: Any) -> Progress:
        progress = fitting.fit(*args, **kwargs)
        recorded.append(progress.history)
        return progress

    monkeypatch.setattr(retraining, "fit", fit)
    return recorded


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def equal(one: TextClassifier, other: TextClassifier) -> bool:
    expected = other.module.state_dict()
    return all(torch.equal(one.module.state_dict()[name], expected[name]) for name in expected)


def test_a_copy_learns_and_the_classifier_stays(
    origin: TextClassifier, dataset: Dataset, tmp_path: Path, histories: list[Any]
) -> None:
    before = origin.logits(TEXTS)
    trained = retrain(origin, CONFIG, dataset, tmp_path)
    assert np.array_equal(origin.logits(TEXTS), before)
    assert not equal(trained, origin)
    assert (trained.name, trained.labels, trained.stored_dtype) == ("tiny", origin.labels, "fp32")
    # There is no early stopping.
    (history,) = histories
    assert [record["epoch"] for record in history] == [1, 2, 3]
    assert max(record["learning_rate"] for record in history) <= 0.02
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_equal_seeds_give_equal_weights_and_other_seeds_others(
    origin: TextClassifier, dataset: Dataset, tmp_path: Path
) -> None:
    torch.manual_seed(7)
    one = retrain(origin, CONFIG, dataset, folder(tmp_path / "one"))
    torch.manual_seed(8)
    two = retrain(origin, CONFIG, dataset, folder(tmp_path / "two"))
    assert equal(one, two)
    other = RetrainingConfig(retraining_epochs=3, retraining_rate=0.02, seed=1)
    assert not equal(one, retrain(origin, other, dataset, folder(tmp_path / "other")))


def test_a_training_interrupted_in_its_second_epoch_ends_with_the_same_weights(
    origin: TextClassifier, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    histories: list[Any],
) -> None:  # fmt: skip
    whole = retrain(origin, CONFIG, dataset, folder(tmp_path / "whole"))
    epochs = iter(range(100))
    train_epoch = fitting._train_epoch

    def interrupted_in_the_second(*args: Any) -> float:
        if next(epochs) == 1:
            raise KeyboardInterrupt
        return train_epoch(*args)

    workspace = folder(tmp_path / "work")
    with pytest.raises(KeyboardInterrupt):
        monkeypatch.setattr(fitting, "_train_epoch", interrupted_in_the_second)
        retrain(origin, CONFIG, dataset, workspace)
    assert (workspace / CHECKPOINT).is_file()
    assert equal(retrain(origin, CONFIG, dataset, workspace), whole)
    assert next(epochs) == 4  # two of three were left
    # A finished training is not repeated.
    monkeypatch.setattr(fitting, "_train_epoch", None)
    assert equal(retrain(origin, CONFIG, dataset, workspace), whole)
    times = {"seconds", "texts_per_second"}
    first, second = (
        [{name: value for name, value in record.items() if name not in times} for record in history]
        for history in histories[:2]
    )
    assert first == second


def test_the_best_epoch_is_kept(
    origin: TextClassifier, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.2, 0.9, 0.4])
    monkeypatch.setattr(evaluation, "macro_f1", lambda *_: next(scores))
    states: list[dict[str, torch.Tensor]] = []
    save = fitting.save_checkpoint

    def save_and_record(path: Path, module: torch.nn.Module, *args: Any) -> None:
        states.append({name: value.clone() for name, value in module.state_dict().items()})
        save(path, module, *args)

    monkeypatch.setattr(fitting, "save_checkpoint", save_and_record)
    best = retrain(origin, CONFIG, dataset, tmp_path).module.state_dict()
    matches = [all(torch.equal(best[name], state[name]) for name in state) for state in states]
    assert matches == [False, True, False]


def test_epochs_are_judged_through_the_projection(
    origin: TextClassifier, dataset: Dataset, tmp_path: Path, histories: list[Any]
) -> None:
    zeros = {name: torch.zeros_like(value) for name, value in origin.module.named_parameters()}
    retrain(origin, CONFIG, dataset, tmp_path, masked(zeros))
    # A network of zeros gives all classes the same probability.
    for record in histories[0]:
        assert record["validation_loss"] == pytest.approx(np.log(3))
        assert record["validation_accuracy"] == pytest.approx(1 / 3)


def test_a_damaged_state_is_one_line(
    origin: TextClassifier, dataset: Dataset, tmp_path: Path
) -> None:
    (tmp_path / CHECKPOINT).write_bytes(b"state")
    with pytest.raises(WeightsError) as caught:
        retrain(origin, CONFIG, dataset, tmp_path)
    assert CHECKPOINT in str(caught.value)
    assert "\n" not in str(caught.value)


def test_texts_are_encoded_with_the_vocabulary_of_the_classifier(origin: TextClassifier) -> None:
    texts = Split("train", ("so happy", "", "zzz"), np.array([0, 1, 2]))
    split = encoded(origin.tokenizer, texts)
    vocabulary = origin.tokenizer.get_vocab()
    assert split.ids == [[vocabulary["so"], vocabulary["happy"]], [UNK_ID], [UNK_ID]]
    assert split.labels.tolist() == [0, 1, 2]
