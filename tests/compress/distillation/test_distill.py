import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from compress.config import CompressConfig
from compress.distillation import lstm_student, transformer_student
from compress.distillation.distill import LEARNED, distill
from compress.distillation.student import distillation_loss
from compress.distillation.teachers import ANSWERS, UNLABELED, DistillationData
from featherweight import load
from featherweight.classifier import softmax
from featherweight.data.dataset import Dataset
from featherweight.errors import UsageError
from featherweight.run import CHECKPOINT, CONFIG, MODEL, Run, kind
from lstm import fit
from lstm.classifier import TextClassifier
from lstm.config import OptimizationConfig, TrainConfig, preset
from lstm.fit import cross_entropy
from lstm.train import train

TEXTS = ["so happy 😂", "", "zzz", "i miss my dog, i feel so alone"]
LABELS = np.array([0, 2, 1, 0, 1])
LOGITS = torch.tensor(
    [[2.0, -1.0, 0.5], [0.0, 0.0, 0.0], [-3.0, 1.0, 4.0], [1.0, 1.5, -2.0], [0.3, 0.2, 0.1]]
)
SOFT = torch.tensor(
    [[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4], [0.05, 0.9, 0.05], [0.2, 0.5, 0.3]]
)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    path = tmp_path / "compressed" / ".distill"
    path.mkdir(parents=True)
    return path


Student = Callable[..., TextClassifier]
LossOf = Callable[..., float]


@pytest.fixture
def student(origin: TextClassifier, dataset: Dataset, tiny_run: Path, workspace: Path) -> Student:
    """Distils with some flags, each time from the start, with the teachers' answers kept."""

    def make(data: Dataset = dataset, **flags: Any) -> TextClassifier:
        shutil.rmtree(workspace)
        workspace.mkdir()
        config = CompressConfig(method="distill", device="cpu", **flags)
        made = distill(origin, Run(tiny_run), config, data, workspace)
        assert isinstance(made, TextClassifier)
        return made

    return make


def equal(one: TextClassifier, other: TextClassifier) -> bool:
    ours, theirs = one.module.state_dict(), other.module.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


def kl(rows: list[int], temperature: float) -> float:
    """T² · KL(teacher ‖ student), worked out in double precision."""
    student = softmax(LOGITS.double().numpy()[rows] / temperature)
    p = SOFT.double().numpy()[rows]
    return float(temperature**2 * (p * np.log(p / student)).sum(axis=1).mean())


def from_labels(rows: list[int]) -> float:
    student = softmax(LOGITS.double().numpy()[rows])
    return float(-np.log(student[np.arange(len(rows)), LABELS[rows]]).mean())


def lstm_loss(rows: list[int], num_labeled: int, config: CompressConfig) -> Tensor:
    known = cross_entropy(LABELS, 3, OptimizationConfig(label_smoothing=0.0), "cpu")
    labels = np.where(np.arange(5) < num_labeled, LABELS, UNLABELED)
    lesson = DistillationData(("",) * 5, labels, SOFT.numpy(), ())
    return lstm_student._loss(known, lesson, config, "cpu")(LOGITS[rows], rows)


def transformer_loss(rows: list[int], num_labeled: int, config: CompressConfig) -> Tensor:
    labels = [int(LABELS[row]) if row < num_labeled else UNLABELED for row in rows]
    batch = {"labels": torch.tensor(labels), "soft": SOFT[rows]}
    return transformer_student._loss(config)(LOGITS[rows], batch)


@pytest.fixture(params=[lstm_loss, transformer_loss])
def loss_of(request: pytest.FixtureRequest) -> LossOf:
    """The loss of some rows, as each kind of student has it."""

    def loss(rows: list[int], num_labeled: int = 5, **flags: Any) -> float:
        config = CompressConfig(method="distill", **flags)
        return float(request.param(rows, num_labeled, config))

    return loss


# The loss


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0, 10.0])
def test_without_labels_the_loss_is_the_divergence_times_the_squared_temperature(
    loss_of: LossOf, temperature: float
) -> None:
    for rows in ([0, 1, 2, 3, 4], [3, 1], [2]):
        found = loss_of(rows, alpha=0.0, temperature=temperature)
        assert found == pytest.approx(kl(rows, temperature), rel=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0])
def test_alpha_mixes_labels_and_teachers(loss_of: LossOf, alpha: float) -> None:
    rows = [4, 0, 2]
    expected = alpha * from_labels(rows) + (1 - alpha) * kl(rows, 3.0)
    assert loss_of(rows, alpha=alpha) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_rows_without_labels_carry_no_loss_of_labels(loss_of: LossOf, alpha: float) -> None:
    rows = [4, 0, 3, 2]
    expected = alpha * from_labels([0, 2]) + (1 - alpha) * kl(rows, 3.0)
    assert loss_of(rows, num_labeled=3, alpha=alpha) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_a_batch_without_any_label_weighs_as_much_as_in_company(
    loss_of: LossOf, alpha: float
) -> None:
    found = loss_of([4, 3], num_labeled=3, alpha=alpha)
    assert found == pytest.approx((1 - alpha) * kl([4, 3], 3.0), rel=1e-4)


def test_a_student_that_answers_as_its_teacher_has_nothing_to_learn() -> None:
    config = CompressConfig(method="distill", alpha=0.0, temperature=2.0)
    soft = (LOGITS / 2).softmax(dim=1)
    known = torch.tensor(5.0)
    assert float(distillation_loss(LOGITS, soft, known, config)) == pytest.approx(0, abs=1e-5)


# The student


def test_with_labels_only_it_is_the_plain_training(
    origin: TextClassifier, student: Student
) -> None:
    made = student(alpha=1.0)
    assert equal(made, origin)
    assert (made.name, made.labels, made.stored_dtype) == ("tiny (distill)", origin.labels, "fp32")
    assert made.tokenizer.get_vocab() == origin.tokenizer.get_vocab()


def test_teachers_and_the_seed_change_what_is_learned(
    origin: TextClassifier, student: Student
) -> None:
    before = origin.logits(TEXTS)
    made = student(alpha=0.5)
    assert not equal(made, origin)
    assert equal(student(alpha=0.5), made)
    assert not equal(student(alpha=1.0, seed=1), origin)
    assert not equal(student(alpha=0.5, temperature=1.0), made)
    assert np.array_equal(origin.logits(TEXTS), before)


def test_a_student_survives_saving(student: Student, tmp_path: Path) -> None:
    made = student()
    made.save(tmp_path / "it.safetensors")
    assert np.array_equal(load(tmp_path / "it.safetensors", "cpu").logits(TEXTS),
                          made.logits(TEXTS))  # fmt: skip


def test_a_step_size_that_is_given_counts(student: Student) -> None:
    made = student(retraining_rate=1e-4)
    assert not equal(made, student())
    assert made.run_config["learning_rate"] == 1e-4


def test_further_texts_are_learned_from(student: Student, tmp_path: Path) -> None:
    path = tmp_path / "more.csv"
    path.write_text("text\nso glad\ni cried\nlate again\n", encoding="utf-8")
    assert not equal(student(unlabelled=path), student())


# A student of another shape


SHORT = {"epochs": 1, "min_steps": 1}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives the presets one short epoch."""

    def made(name: Any, **flags: Any) -> TrainConfig:
        return replace(preset(name, **flags), **SHORT)

    monkeypatch.setattr(lstm_student, "preset", made)


@pytest.mark.parametrize("name", ["feather", "classic"])
def test_with_labels_only_a_preset_is_trained_as_by_train(
    student: Student, tiny_data: Path, tmp_path: Path, short: None, name: Any
) -> None:
    made = student(student=name, alpha=1.0)
    flags = {"data": str(tiny_data), "output_dir": tmp_path, "name": "it", "device": "cpu"}
    run, _ = train(preset(name, **flags, **SHORT))
    trained = load(run.path, "cpu")
    assert isinstance(trained, TextClassifier)
    assert equal(made, trained)
    assert made.tokenizer.to_str() == trained.tokenizer.to_str()
    assert asdict(made.config) == asdict(trained.config)
    assert made.name == "tiny (distill)"
    config = run.read_json(CONFIG)
    ours = json.loads(json.dumps(made.run_config))
    assert {key for key in config if ours[key] != config[key]} <= {"name", "output_dir"}
    assert kind(ours) == "lstm"


def test_a_student_of_its_own_kind_has_the_config_of_the_run(
    student: Student, tiny_run: Path
) -> None:
    config = Run(tiny_run).read_json(CONFIG)
    assert student(seed=3).run_config == config | {"seed": 3}


# Cut off and gone on with


def cut_off(monkeypatch: pytest.MonkeyPatch, learn: Callable[[], Any]) -> None:
    """Ends a training in its second epoch."""
    train_epoch, taken = fit._train_epoch, []

    def killed(*given: Any) -> float:
        if taken:
            raise KeyboardInterrupt
        taken.append("epoch")
        return train_epoch(*given)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(fit, "_train_epoch", killed)
        learn()


@pytest.mark.parametrize("change", ["nothing", "teacher", "labels", "validation"])
def test_a_cut_off_student_goes_on_if_it_still_learns_the_same(
    origin: TextClassifier, dataset: Dataset, tiny_run: Path, workspace: Path, student: Student,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: str,
) -> None:  # fmt: skip
    teacher = Path(shutil.copy(tiny_run / MODEL, tmp_path / "teacher.safetensors"))
    config = CompressConfig(method="distill", device="cpu", teachers=[teacher])

    def learn(data: Dataset) -> Any:
        return distill(origin, Run(tiny_run), config, data, workspace)

    cut_off(monkeypatch, lambda: learn(dataset))
    if change == "teacher":
        other = load(teacher, "cpu")
        assert isinstance(other, TextClassifier)
        with torch.no_grad():
            other.module.head.weight *= -1
        other.save(teacher)
    if change == "labels":
        labels = dataset.train.labels.copy()
        labels[0] = (labels[0] + 1) % 3
        dataset = replace(dataset, train=replace(dataset.train, labels=labels))
    if change == "validation":
        texts = (dataset.validation.texts[1], *dataset.validation.texts[1:])
        dataset = replace(dataset, validation=replace(dataset.validation, texts=texts))
    epochs: list[int] = []
    train_epoch = fit._train_epoch

    def counted(*given: Any) -> float:
        epochs.append(given[1])
        return train_epoch(*given)

    monkeypatch.setattr(fit, "_train_epoch", counted)
    made = learn(dataset)
    assert epochs == ([1] if change == "nothing" else [0, 1])
    assert equal(made, student(dataset, teachers=[teacher]))


def test_a_state_of_unknown_origin_is_not_gone_on_with(
    origin: TextClassifier, dataset: Dataset, tiny_run: Path, workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    config = CompressConfig(method="distill", device="cpu")

    def learn() -> Any:
        return distill(origin, Run(tiny_run), config, dataset, workspace)

    whole = learn()
    (workspace / LEARNED).unlink()
    (workspace / CHECKPOINT).write_bytes(b"of something else")
    assert equal(learn(), whole)


# What is kept of the teachers


def test_a_good_end_removes_the_answers_that_it_did_not_need(
    student: Student, tiny_run: Path, tmp_path: Path, workspace: Path
) -> None:
    folder = workspace.parent / ANSWERS
    student()
    (first,) = folder.iterdir()
    more = tmp_path / "more.csv"
    more.write_text("text\nso glad\n", encoding="utf-8")
    student(unlabelled=more)
    (second,) = folder.iterdir()
    assert second != first
    with pytest.raises(UsageError, match="--teachers"):
        student(teachers=[other_labels(tiny_run, tmp_path / "other.safetensors")])
    assert list(folder.iterdir()) == [second]


def other_labels(tiny_run: Path, path: Path) -> Path:
    classifier = load(tiny_run, "cpu")
    assert isinstance(classifier, TextClassifier)
    classifier.labels = ("anger", "joy", "gloom")
    classifier.save(path)
    return path
