import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from featherweight.device import seed_everything
from featherweight.errors import UsageError, WeightsError
from featherweight.quality import evaluation
from featherweight.training.config import class_weights
from lstm import fit as fit_module
from lstm.checkpoint import Progress
from lstm.config import ModelConfig, OptimizationConfig
from lstm.encoder import LSTMClassifier
from lstm.fit import EncodedSplit, fit, learning_rate_at
from tests.helpers.seeding import untouched_generators

NUM_LABELS, VOCAB_SIZE = 3, 30
CONFIG = OptimizationConfig(
    epochs=4, min_steps=1, batch_size=8, learning_rate=0.02, patience=10, device="cpu"
)
TIMES = {"seconds", "texts_per_second"}


def split(n: int, seed: int) -> EncodedSplit:
    """Texts of 1 to 9 random words and one word that determines the class."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n, dtype=np.int64) % NUM_LABELS)
    ids = []
    for label in labels:
        words = rng.integers(10, VOCAB_SIZE, rng.integers(1, 10)).tolist()
        words.insert(int(rng.integers(len(words) + 1)), 2 + int(label))
        ids.append(words)
    return EncodedSplit(ids, labels)


TRAIN, VALIDATION = split(45, seed=1), split(21, seed=2)


def network(seed: int = 0, **changes: Any) -> LSTMClassifier:
    seed_everything(seed)
    config = replace(ModelConfig(embedding_dim=8, hidden_dim=8), **changes)
    return LSTMClassifier(VOCAB_SIZE, NUM_LABELS, config)


def trained(
    path: Path, config: OptimizationConfig = CONFIG, **changes: Any
) -> tuple[dict[str, Tensor], Progress]:
    """Trains with a checkpoint at `path`; returns the final weights and the history."""
    module = network(config.seed, **changes)
    progress = fit(module, TRAIN, VALIDATION, config, "cpu", path)
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}, progress


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], Progress]:
    """The result of a training with the default config."""
    with untouched_generators():
        return trained(tmp_path_factory.mktemp("reference") / "checkpoint")


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def untimed(progress: Progress) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k not in TIMES} for record in progress.history]


def with_scores(monkeypatch: pytest.MonkeyPatch, scores: Sequence[float]) -> None:
    """Makes validation return these macro-F1 scores in turn."""
    found: Iterator[float] = iter(scores)
    monkeypatch.setattr(evaluation, "macro_f1", lambda *_: next(found))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # 10 steps, 2 of warm-up; then remaining = 1 - (step - 2) / 8
        ("linear", [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        ("constant", [0.5] + [1.0] * 9),
        (
            "cosine",
            [0.5, 1.0, 1.0, 0.961940, 0.853553, 0.691342, 0.5, 0.308658, 0.146447, 0.038060],
        ),
    ],
)
def test_learning_rate_worked_by_hand(schedule: Any, expected: list[float]) -> None:
    config = OptimizationConfig(schedule=schedule, warmup_ratio=0.2, learning_rate=0.3)
    rates = [learning_rate_at(step, 10, config) / 0.3 for step in range(10)]
    assert rates == pytest.approx(expected, abs=1e-6)


def test_warm_up_climbs_evenly_to_the_full_rate() -> None:
    config = OptimizationConfig(warmup_ratio=0.05, learning_rate=1.0)
    rates = [learning_rate_at(step, 100, config) for step in range(6)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup_ratio", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("total_steps", [1, 2, 7])
def test_learning_rate_stays_above_0_and_at_most_full(
    schedule: Any, warmup_ratio: float, total_steps: int
) -> None:
    config = OptimizationConfig(schedule=schedule, warmup_ratio=warmup_ratio, learning_rate=1.0)
    rates = [learning_rate_at(step, total_steps, config) for step in range(total_steps)]
    assert all(0 < rate <= 1 for rate in rates)
    assert max(rates) == 1


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_training_follows_the_schedule_to_its_last_step(tmp_path: Path, schedule: Any) -> None:
    config = replace(CONFIG, schedule=schedule)
    _, progress = trained(tmp_path / "checkpoint", config)
    # 45 texts in batches of 8 are 6 steps per epoch, 24 in total.
    assert [record["learning_rate"] for record in progress.history] == [
        learning_rate_at(step, 24, config) for step in (5, 11, 17, 23)
    ]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 0, 0, 1, 1, 2], [6 / 9, 6 / 6, 6 / 3]),
        ([0, 1, 2], [1.0, 1.0, 1.0]),
        ([2, 2, 1, 0, 0, 0, 0, 0], [8 / 15, 8 / 3, 8 / 6]),
    ],
)
def test_balanced_class_weights_worked_by_hand(labels: list[int], expected: list[float]) -> None:
    config = OptimizationConfig(class_weights="balanced")
    weights = class_weights(np.array(labels), 3, config)
    assert weights.tolist() == pytest.approx(expected)
    reference = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert weights.tolist() == pytest.approx(reference.tolist())


def test_balanced_class_weights_are_finite_where_a_class_has_no_text() -> None:
    config = OptimizationConfig(class_weights="balanced")
    weights = class_weights(np.array([0, 0, 2]), 3, config)
    assert np.isfinite(weights).all()
    assert weights[[0, 2]].tolist() == pytest.approx([3 / 6, 3 / 3])


def test_class_weights_default_to_one(tmp_path: Path) -> None:
    weights = class_weights(np.array([0, 0, 0, 1]), 2, OptimizationConfig())
    assert weights.tolist() == [1, 1]


def test_class_weights_reach_the_loss(
    reference: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        fit_module, "class_weights", lambda *_: np.array([1.0, 5.0, 0.1], np.float32)
    )
    weighted, _ = trained(tmp_path / "weighted")
    assert not equal(reference[0], weighted)


def test_training_learns_separable_classes(tmp_path: Path) -> None:
    _, progress = trained(tmp_path / "checkpoint", replace(CONFIG, epochs=12))
    assert progress.history[-1]["train_loss"] < 0.5 * progress.history[0]["train_loss"]
    assert progress.best_f1 > 0.9


def test_first_loss_is_that_of_random_guessing(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=1, learning_rate=1e-12, label_smoothing=0.0)
    _, progress = trained(tmp_path / "checkpoint", config)
    assert progress.history[0]["train_loss"] == pytest.approx(math.log(3), abs=0.15)
    assert progress.history[0]["validation_loss"] == pytest.approx(math.log(3), abs=0.15)


def test_same_seed_gives_the_same_weights_bit_for_bit(reference: Any, tmp_path: Path) -> None:
    weights, progress = trained(tmp_path / "other")
    assert equal(weights, reference[0])
    assert untimed(progress) == untimed(reference[1])


def test_weights_do_not_depend_on_earlier_random_numbers(reference: Any, tmp_path: Path) -> None:
    module = network()
    torch.rand(7), np.random.rand(7), random.random()
    fit(module, TRAIN, VALIDATION, CONFIG, "cpu", tmp_path / "other")
    assert equal(module.state_dict(), reference[0])


def test_other_seed_gives_other_weights(reference: Any, tmp_path: Path) -> None:
    weights, _ = trained(tmp_path / "other", replace(CONFIG, seed=1))
    assert not equal(weights, reference[0])


def test_seed_changes_order_and_dropout(tmp_path: Path) -> None:
    weights = []
    for seed in (0, 1):
        module = network(seed=5)
        fit(module, TRAIN, VALIDATION, replace(CONFIG, seed=seed), "cpu", tmp_path / str(seed))
        weights.append(module.state_dict())
    assert not equal(*weights)


@pytest.mark.parametrize(
    ("scores", "patience", "epochs"),
    [
        ([0.5, 0.4, 0.4, 0.4, 0.9], 3, 4),
        ([0.5, 0.6, 0.6, 0.6, 0.9], 2, 4),  # an equal score is not an improvement
        ([0.1, 0.2, 0.1, 0.3, 0.2], 2, 5),
        ([0.5, 0.4, 0.6, 0.7, 0.8], 1, 2),
        ([0.0, 0.0, 0.0, 0.0, 0.0], 2, 3),
    ],
)
def test_training_stops_after_patience_epochs_without_gain(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scores: list[float],
    patience: int,
    epochs: int,
) -> None:
    with_scores(monkeypatch, scores)
    _, progress = trained(tmp_path / "checkpoint", replace(CONFIG, epochs=5, patience=patience))
    assert [record["validation_macro_f1"] for record in progress.history] == scores[:epochs]


@pytest.mark.parametrize("best", [1, 3, 4])
def test_final_weights_are_those_of_the_best_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, best: int
) -> None:
    with_scores(monkeypatch, [0.9 if epoch == best else 0.1 for epoch in range(1, 5)])
    after: list[dict[str, Tensor]] = []
    save = fit_module.save_checkpoint

    def recording_save(path: Path, module: LSTMClassifier, *rest: Any) -> None:
        after.append({name: tensor.clone() for name, tensor in module.state_dict().items()})
        save(path, module, *rest)

    monkeypatch.setattr(fit_module, "save_checkpoint", recording_save)
    weights, _ = trained(tmp_path / "checkpoint")
    assert [equal(weights, state) for state in after] == [epoch == best for epoch in range(1, 5)]


class CutOffError(Exception):
    pass


def cut_off_after(epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends a training after the checkpoint of this epoch."""
    save, calls = fit_module.save_checkpoint, iter(range(1, 100))

    def save_and_die(*arguments: Any) -> None:
        save(*arguments)
        if next(calls) == epochs:
            raise CutOffError

    monkeypatch.setattr(fit_module, "save_checkpoint", save_and_die)


def resumed(
    path: Path, config: OptimizationConfig, monkeypatch: pytest.MonkeyPatch, epochs: int
) -> tuple[dict[str, Tensor], Progress]:
    with monkeypatch.context() as context:
        cut_off_after(epochs, context)
        with pytest.raises(CutOffError):
            trained(path, config)
    # A new process starts with other generator states and other weights.
    module = network(seed=77)
    progress = fit(module, TRAIN, VALIDATION, config, "cpu", path)
    return module.state_dict(), progress


@pytest.mark.parametrize(("schedule", "epochs"), [("cosine", 1), ("linear", 3), ("constant", 4)])
def test_resumed_training_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: Any, epochs: int
) -> None:
    config = replace(CONFIG, schedule=schedule)
    expected, whole = trained(tmp_path / "whole", config)
    weights, progress = resumed(tmp_path / "resumed", config, monkeypatch, epochs)
    assert equal(weights, expected)
    assert untimed(progress) == untimed(whole)


@pytest.mark.parametrize("epochs", [1, 3])
def test_resumed_training_stops_as_early_as_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int
) -> None:
    # Steps this small change no prediction, so no later epoch is better.
    config = replace(CONFIG, epochs=9, patience=2, learning_rate=1e-12)
    expected, whole = trained(tmp_path / "whole", config)
    assert whole.epoch == 3
    weights, progress = resumed(tmp_path / "resumed", config, monkeypatch, epochs)
    assert equal(weights, expected)
    assert untimed(progress) == untimed(whole)


def test_best_epoch_before_an_interruption_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = [0.2, 0.9, 0.3, 0.4]
    with_scores(monkeypatch, scores)
    expected, _ = trained(tmp_path / "whole")
    with_scores(monkeypatch, scores)
    weights, progress = resumed(tmp_path / "resumed", CONFIG, monkeypatch, 3)
    assert equal(weights, expected)
    assert progress.best_f1 == 0.9


def test_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    path.write_bytes(b"no checkpoint at all")
    with pytest.raises(WeightsError):
        trained(path)


@pytest.mark.parametrize(
    ("texts", "batch_size", "min_steps", "passes"),
    [
        (100, 10, 1, 1),
        (100, 10, 10, 1),
        (100, 10, 11, 2),
        (95, 10, 30, 3),  # a short last batch is a step too
        (3, 32, 400, 400),
        (16_000, 32, 400, 1),
    ],
)
def test_small_training_splits_are_repeated_until_min_steps(
    texts: int, batch_size: int, min_steps: int, passes: int
) -> None:
    config = OptimizationConfig(batch_size=batch_size, min_steps=min_steps)
    assert config.passes_per_epoch(texts, batch_size) == passes


def test_every_pass_has_every_text_once_in_a_new_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, epochs=2, min_steps=13)  # 6 steps per pass, so 3 passes
    shown: list[list[int]] = []
    batches = fit_module.shuffled_batches

    def recording_batches(*arguments: Any) -> Iterator[list[int]]:
        rows = list(batches(*arguments))
        shown.append([row for batch in rows for row in batch])
        yield from rows

    monkeypatch.setattr(fit_module, "shuffled_batches", recording_batches)
    trained(tmp_path / "checkpoint", config)
    assert len(shown) == 6
    assert all(sorted(order) == list(range(45)) for order in shown)
    assert len({tuple(order) for order in shown}) == 6


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_on_the_cpu_is_refused(tmp_path: Path, precision: Any) -> None:
    with pytest.raises(UsageError, match=f"--precision {precision}"):
        trained(tmp_path / "checkpoint", replace(CONFIG, precision=precision))
    assert not list(tmp_path.iterdir())


def test_padding_row_stays_zero_in_training(reference: Any) -> None:
    weights, _ = reference
    assert not weights["embedding.weight"][0].any()
    assert weights["embedding.weight"][1:].any()


def test_gradients_are_clipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    step = torch.optim.AdamW.step

    def recording_step(self: torch.optim.AdamW, *arguments: Any) -> Any:
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(torch.cat([g.flatten() for g in gradients if g is not None]).norm().item())
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", recording_step)
    trained(tmp_path / "checkpoint", replace(CONFIG, epochs=1, max_grad_norm=0.01))
    assert len(norms) == 6
    assert max(norms) == pytest.approx(0.01, rel=1e-3)


def test_validation_scores_do_not_depend_on_the_batch_size(
    reference: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, whole = reference
    monkeypatch.setattr(fit_module, "_EVALUATION_BATCH", 4)
    _, parts = trained(tmp_path / "parts")
    for one, other in zip(untimed(whole), untimed(parts), strict=True):
        assert one == pytest.approx(other, abs=1e-6)
