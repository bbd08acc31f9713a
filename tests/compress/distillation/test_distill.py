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
from compress.distillation.distill import LEARNED, distill, student_config
from compress.distillation.student import distillation_loss
from compress.distillation.teachers import CACHE, UNLABELED, DistillationData
from compress.origin import Origin
from featherweight import load
from featherweight.classifier import softmax
from featherweight.data.dataset import Dataset, Split
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
    """Distills with some flags, each time from the start, with cached predictions."""

    def make(data: Dataset = dataset, **flags: Any) -> TextClassifier:
        shutil.rmtree(workspace)
        workspace.mkdir()
        config = CompressConfig(method="distill", device="cpu", **flags)
        variant = distill(Origin(Run(tiny_run), origin, data), config, workspace)
        assert isinstance(variant, TextClassifier)
        return variant

    return make


def equal(one: TextClassifier, other: TextClassifier) -> bool:
    weights, expected = one.module.state_dict(), other.module.state_dict()
    return weights.keys() == expected.keys() and all(
        torch.equal(weights[name], expected[name]) for name in weights
    )


def kl(rows: list[int], temperature: float) -> float:
    """T² · KL(teacher ‖ student) in double precision."""
    student = softmax(LOGITS.double().numpy()[rows] / temperature)
    p = SOFT.double().numpy()[rows]
    return float(temperature**2 * (p * np.log(p / student)).sum(axis=1).mean())


def label_loss(rows: list[int]) -> float:
    student = softmax(LOGITS.double().numpy()[rows])
    return float(-np.log(student[np.arange(len(rows)), LABELS[rows]]).mean())


def lstm_loss(rows: list[int], num_labeled: int, config: CompressConfig) -> Tensor:
    known = cross_entropy(LABELS, 3, OptimizationConfig(label_smoothing=0.0), "cpu")
    labels = np.where(np.arange(5) < num_labeled, LABELS, UNLABELED)
    data = DistillationData(Split("train", ("",) * 5, labels), SOFT.numpy(), ())
    return lstm_student._loss(known, data, config, "cpu")(LOGITS[rows], rows)


def transformer_loss(rows: list[int], num_labeled: int, config: CompressConfig) -> Tensor:
    labels = [int(LABELS[row]) if row < num_labeled else UNLABELED for row in rows]
    batch = {"labels": torch.tensor(labels), "soft": SOFT[rows]}
    return transformer_student._loss(config)(LOGITS[rows], batch)


@pytest.fixture(params=[lstm_loss, transformer_loss])
def loss_of(request: pytest.FixtureRequest) -> LossOf:
    """The loss of some rows, for each kind of student."""

    def loss(rows: list[int], num_labeled: int = 5, **flags: Any) -> float:
        config = CompressConfig(method="distill", **flags)
        return float(request.param(rows, num_labeled, config))

    return loss


# The loss


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_without_labels_the_loss_is_the_divergence_times_the_squared_temperature(
    loss_of: LossOf, temperature: float
) -> None:
    for rows in ([0, 1, 2, 3, 4], [3, 1], [2]):
        found = loss_of(rows, alpha=0.0, temperature=temperature)
        assert found == pytest.approx(kl(rows, temperature), rel=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_alpha_mixes_labels_and_teachers(loss_of: LossOf, alpha: float) -> None:
    rows = [4, 0, 2]
    expected = alpha * label_loss(rows) + (1 - alpha) * kl(rows, 3.0)
    assert loss_of(rows, alpha=alpha) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_rows_without_labels_have_no_label_loss(loss_of: LossOf, alpha: float) -> None:
    rows = [4, 0, 3, 2]
    expected = alpha * label_loss([0, 2]) + (1 - alpha) * kl(rows, 3.0)
    assert loss_of(rows, num_labeled=3, alpha=alpha) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_a_batch_without_labels_has_only_the_teacher_loss(loss_of: LossOf, alpha: float) -> None:
    found = loss_of([4, 3], num_labeled=3, alpha=alpha)
    assert found == pytest.approx((1 - alpha) * kl([4, 3], 3.0), rel=1e-4)


def test_the_loss_of_a_student_with_the_logits_of_its_teacher_is_0() -> None:
    config = CompressConfig(method="distill", alpha=0.0, temperature=2.0)
    soft = (LOGITS / 2).softmax(dim=1)
    known = torch.tensor(5.0)
    assert float(distillation_loss(LOGITS, soft, known, config)) == pytest.approx(0, abs=1e-5)


# The student


def test_with_labels_only_it_equals_plain_training(
    origin: TextClassifier, student: Student
) -> None:
    made = student(alpha=1.0)
    assert equal(made, origin)
    assert (made.name, made.labels, made.stored_dtype) == ("tiny (distill)", origin.labels, "fp32")
    assert made.tokenizer.get_vocab() == origin.tokenizer.get_vocab()


def test_teachers_temperature_seed_rate_and_additional_texts_matter(
    origin: TextClassifier, student: Student, tmp_path: Path
) -> None:
    before = origin.logits(TEXTS)
    path = tmp_path / "more.csv"
    path.write_text("text\nso glad\ni cried\nlate again\n", encoding="utf-8")
    made = student()
    assert not equal(made, origin)
    assert equal(student(), made)
    assert not equal(student(alpha=1.0, seed=1), origin)
    for flags in ({"temperature": 1.0}, {"retraining_rate": 1e-4}, {"unlabelled": path}):
        assert not equal(student(**flags), made)
    assert np.array_equal(origin.logits(TEXTS), before)
    # It survives saving.
    made.save(tmp_path / "student.safetensors")
    loaded = load(tmp_path / "student.safetensors", "cpu")
    assert np.array_equal(loaded.logits(TEXTS), made.logits(TEXTS))


@pytest.fixture
def run_from_vectors(tiny_run: Path, tmp_path: Path) -> Run:
    """A copy of the tiny run whose config names the word vectors of the package."""
    run = Run(Path(shutil.copytree(tiny_run, tmp_path / "tiny")))
    run.write_json(CONFIG, run.read_json(CONFIG) | {"vectors": "builtin"})
    return run


def test_a_student_starts_from_the_word_vectors_of_its_origin(
    origin: TextClassifier, dataset: Dataset, tiny_data: Path, run_from_vectors: Run,
    workspace: Path, tmp_path: Path,
) -> None:  # fmt: skip
    flags = CompressConfig(method="distill", device="cpu", alpha=1.0)
    made = distill(Origin(run_from_vectors, origin, dataset), flags, workspace)
    config = TrainConfig(**{
        **{k: v for k, v in run_from_vectors.read_json(CONFIG).items() if k != "kind"},
        "output_dir": tmp_path, "name": "trained",
    })  # fmt: skip
    trained = load(train(config)[0].path, "cpu")
    assert isinstance(made, TextClassifier) and isinstance(trained, TextClassifier)
    assert equal(made, trained)
    assert not equal(made, origin)


def test_a_run_from_before_word_vectors_is_distilled_without(
    origin: TextClassifier, dataset: Dataset, run_from_vectors: Run, workspace: Path
) -> None:
    config = run_from_vectors.read_json(CONFIG)
    del config["vectors"]
    run_from_vectors.write_json(CONFIG, config)
    flags = CompressConfig(method="distill", device="cpu", alpha=1.0)
    made = distill(Origin(run_from_vectors, origin, dataset), flags, workspace)
    assert isinstance(made, TextClassifier)
    assert equal(made, origin)


# A student with another shape


SHORT = {"epochs": 1, "min_steps": 1}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the presets train for one short epoch."""

    def made(name: Any, **flags: Any) -> TrainConfig:
        return replace(preset(name, **flags), **SHORT)

    monkeypatch.setattr(lstm_student, "preset", made)


@pytest.mark.parametrize("name", ["feather", "classic"])
def test_with_labels_only_a_preset_equals_the_result_of_train(
    origin: TextClassifier, dataset: Dataset, student: Student, tiny_run: Path, tiny_data: Path,
    tmp_path: Path, short: None, name: Any,
) -> None:  # fmt: skip
    made = student(student=name, alpha=1.0)
    flags = {"data": str(tiny_data), "output_dir": tmp_path, "name": "trained", "device": "cpu"}
    run, _ = train(preset(name, **flags, **SHORT))
    trained = load(run.path, "cpu")
    assert isinstance(trained, TextClassifier)
    assert equal(made, trained)
    assert made.tokenizer.to_str() == trained.tokenizer.to_str()
    assert asdict(made.config) == asdict(trained.config)
    assert made.name == "tiny (distill)"
    config = run.read_json(CONFIG)
    flags = CompressConfig(method="distill", device="cpu", student=name)
    made_config = student_config(Origin(Run(tiny_run), origin, dataset), flags)
    actual = json.loads(json.dumps(made_config))
    assert {key for key in config if actual[key] != config[key]} <= {"name", "output_dir"}
    assert kind(actual) == "lstm"


def test_a_student_of_the_same_shape_has_the_config_of_its_origin(
    origin: TextClassifier, dataset: Dataset, tiny_run: Path
) -> None:
    config = Run(tiny_run).read_json(CONFIG)
    for flags, expected in (({}, {}), ({"retraining_rate": 1e-4}, {"learning_rate": 1e-4})):
        changed = CompressConfig(method="distill", seed=3, **flags)  # type: ignore[arg-type]
        made = student_config(Origin(Run(tiny_run), origin, dataset), changed)
        assert made == config | {"seed": 3} | expected


# Interruption


def interrupt(monkeypatch: pytest.MonkeyPatch, learn: Callable[[], Any]) -> None:
    """Interrupts a training in its second epoch."""
    train_epoch, finished = fit._train_epoch, []

    def interrupted(*args: Any) -> float:
        if finished:
            raise KeyboardInterrupt
        finished.append("epoch")
        return train_epoch(*args)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(fit, "_train_epoch", interrupted)
        learn()


@pytest.mark.parametrize("change", ["nothing", "teacher", "labels", "validation"])
def test_an_interrupted_training_resumes_only_with_equal_data(
    origin: TextClassifier, dataset: Dataset, tiny_run: Path, workspace: Path, student: Student,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: str,
) -> None:  # fmt: skip
    teacher = Path(shutil.copy(tiny_run / MODEL, tmp_path / "teacher.safetensors"))
    config = CompressConfig(method="distill", device="cpu", teachers=[teacher])

    def learn(data: Dataset) -> Any:
        return distill(Origin(Run(tiny_run), origin, data), config, workspace)

    interrupt(monkeypatch, lambda: learn(dataset))
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

    def counted(*args: Any) -> float:
        epochs.append(args[1])
        return train_epoch(*args)

    monkeypatch.setattr(fit, "_train_epoch", counted)
    made = learn(dataset)
    assert epochs == ([1] if change == "nothing" else [0, 1])
    assert equal(made, student(dataset, teachers=[teacher]))


def test_a_checkpoint_of_unknown_origin_is_not_resumed(
    origin: TextClassifier, dataset: Dataset, tiny_run: Path, workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    config = CompressConfig(method="distill", device="cpu")

    def learn() -> Any:
        return distill(Origin(Run(tiny_run), origin, dataset), config, workspace)

    whole = learn()
    (workspace / LEARNED).unlink()
    (workspace / CHECKPOINT).write_bytes(b"of something else")
    assert equal(learn(), whole)


# Cached predictions


def test_success_removes_stale_predictions(
    student: Student, tiny_run: Path, tmp_path: Path, workspace: Path
) -> None:
    folder = workspace.parent / CACHE
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
