import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from torch import Tensor

from compress import distillation
from compress.config import CompressConfig
from compress.distillation import distill, distillation_loss
from featherweight import load
from featherweight.classifier import FloatArray, softmax
from featherweight.dataset import Dataset
from featherweight.errors import DataError, FeatherweightError, UsageError, WeightsError
from featherweight.run import MODEL, Run
from lstm.classifier import TextClassifier
from lstm.config import OptimizationConfig
from lstm.training import Loss, cross_entropy
from transformer_eval.architecture import build
from transformer_eval.registry import Pretrained

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


@pytest.fixture
def student(origin: TextClassifier, dataset: Dataset, tiny_run: Path, workspace: Path) -> Student:
    """Distils with some flags, each time from the start, with the teachers' answers kept."""

    def make(data: Dataset = dataset, **flags: Any) -> TextClassifier:
        shutil.rmtree(workspace)
        workspace.mkdir()
        config = CompressConfig(method="distill", device="cpu", **flags)
        return distill(origin, Run(tiny_run), config, data, workspace)

    return make


@pytest.fixture
def softened(monkeypatch: pytest.MonkeyPatch) -> list[FloatArray]:
    """Keeps what each student learned from, (N, C)."""
    kept = []

    def loss(from_labels: Loss, num_labelled: int, soft: Tensor, config: Any) -> Loss:
        assert num_labelled == 36
        kept.append(soft.numpy())
        return distillation_loss(from_labels, num_labelled, soft, config)

    monkeypatch.setattr(distillation, "distillation_loss", loss)
    return kept


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Keeps which teachers were loaded."""
    kept = []

    def watched(weights: Path, *given: Any) -> Any:
        kept.append(weights)
        return load(weights, *given)

    monkeypatch.setattr(distillation, "load", watched)
    return kept


def teacher(tiny_run: Path, path: Path, seed: int = 0, **changes: Any) -> Path:
    """A copy of the run with other weights in its last layer, or other labels."""
    shutil.copytree(tiny_run, path)
    classifier = load(path, "cpu")
    assert isinstance(classifier, TextClassifier)
    head = classifier.module.head
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.weight += torch.randn(head.weight.shape, generator=generator)
        order = changes.get("order", [0, 1, 2])
        head.weight[:], head.bias[:] = head.weight[order].clone(), head.bias[order].clone()
    classifier.labels = changes.get("labels", tuple(classifier.labels[it] for it in order))
    classifier.save(path / MODEL)
    return path


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


def loss_of(rows: list[int], num_labelled: int = 5, **flags: Any) -> float:
    plain = OptimizationConfig(label_smoothing=0.0)
    known = cross_entropy(LABELS, 3, plain, "cpu")
    config = CompressConfig(method="distill", **flags)
    return float(distillation_loss(known, num_labelled, SOFT, config)(LOGITS[rows], rows))


# The loss


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0, 10.0])
def test_without_labels_the_loss_is_the_divergence_times_the_squared_temperature(
    temperature: float,
) -> None:
    for rows in ([0, 1, 2, 3, 4], [3, 1], [2]):
        found = loss_of(rows, alpha=0.0, temperature=temperature)
        assert found == pytest.approx(kl(rows, temperature), rel=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0])
def test_alpha_mixes_labels_and_teachers(alpha: float) -> None:
    rows = [4, 0, 2]
    expected = alpha * from_labels(rows) + (1 - alpha) * kl(rows, 3.0)
    assert loss_of(rows, alpha=alpha) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_rows_without_labels_carry_no_loss_of_labels(alpha: float) -> None:
    rows = [4, 0, 3, 2]
    expected = alpha * from_labels([0, 2]) + (1 - alpha) * kl(rows, 3.0)
    assert loss_of(rows, num_labelled=3, alpha=alpha) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_a_batch_without_any_label_weighs_as_much_as_in_company(alpha: float) -> None:
    found = loss_of([4, 3], num_labelled=3, alpha=alpha)
    assert found == pytest.approx((1 - alpha) * kl([4, 3], 3.0), rel=1e-4)


def test_a_student_that_answers_as_its_teacher_has_nothing_to_learn() -> None:
    config = CompressConfig(method="distill", alpha=0.0, temperature=2.0)
    soft = (LOGITS / 2).softmax(dim=1)
    loss = distillation_loss(cross_entropy(LABELS, 3, OptimizationConfig(), "cpu"), 5, soft, config)
    assert float(loss(LOGITS, [0, 1, 2, 3, 4])) == pytest.approx(0, abs=1e-5)


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


# The teachers


def test_without_teachers_the_run_teaches_itself(
    origin: TextClassifier, dataset: Dataset, student: Student, softened: list[FloatArray]
) -> None:
    student(temperature=2.0)
    expected = softmax(origin.logits(dataset.train.texts) / 2)
    assert softened[0] == pytest.approx(expected, abs=1e-6)


def test_two_teachers_count_as_the_mean_of_their_softened_answers(
    dataset: Dataset, student: Student, tiny_run: Path, tmp_path: Path,
    softened: list[FloatArray],
) -> None:  # fmt: skip
    teachers = [teacher(tiny_run, tmp_path / name, seed) for seed, name in enumerate("ab")]
    student(teachers=teachers, temperature=0.1)
    logits = [load(path, "cpu").logits(dataset.train.texts) for path in teachers]
    expected = (softmax(logits[0] / 0.1) + softmax(logits[1] / 0.1)) / 2
    assert softened[0] == pytest.approx(expected, abs=1e-6)
    assert softened[0] != pytest.approx(softmax((logits[0] + logits[1]) / 0.2), abs=1e-3)


def test_labels_in_another_order_are_matched_by_name(
    student: Student, tiny_run: Path, tmp_path: Path, softened: list[FloatArray]
) -> None:
    plain = teacher(tiny_run, tmp_path / "plain")
    permuted = teacher(tiny_run, tmp_path / "permuted", order=[2, 0, 1])
    assert load(plain).labels != load(permuted).labels
    one = student(teachers=[plain])
    other = student(teachers=[permuted])
    assert softened[0] == pytest.approx(softened[1], abs=1e-6)
    assert len(set(softened[0].argmax(axis=1).tolist())) > 1
    assert one.logits(TEXTS) == pytest.approx(other.logits(TEXTS), abs=1e-3)


def test_a_transformer_teaches_too(
    dataset: Dataset, student: Student, tmp_path: Path, softened: list[FloatArray]
) -> None:
    sizes = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 48, "vocab_size": 600, "initializer_range": 0.5,
    }  # fmt: skip
    labels = ("sadness", "anger", "joy")
    build(Pretrained("acme/tiny", "bert", sizes), dataset.train.texts, labels, tmp_path / "bert")
    student(teachers=[tmp_path / "bert"], temperature=1.0)
    answers = load(tmp_path / "bert", "cpu").logits(dataset.train.texts)
    assert softened[0] == pytest.approx(softmax(answers[:, [1, 2, 0]]), abs=1e-5)


@pytest.mark.parametrize("labels", [("anger", "joy", "gloom"), ("Anger", "joy", "sadness")])
def test_a_teacher_of_other_classes_is_refused(
    student: Student, tiny_run: Path, tmp_path: Path, labels: tuple[str, ...]
) -> None:
    path = teacher(tiny_run, tmp_path / "other", labels=labels)
    with pytest.raises(UsageError, match="--teachers") as caught:
        student(teachers=[tiny_run, path])
    for part in (str(path), *labels, "sadness"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_teacher_that_is_not_there_or_damaged_is_one_line(
    student: Student, tiny_run: Path, tmp_path: Path
) -> None:
    damaged = teacher(tiny_run, tmp_path / "damaged")
    content = (damaged / MODEL).read_bytes()
    (damaged / MODEL).write_bytes(content[:-40])
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "nowhere", tmp_path / "empty", damaged):
        with pytest.raises(WeightsError) as caught:
            student(teachers=[path])
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


# Further texts


def further(path: Path, *texts: str) -> Path:
    path.write_text("\n".join(["text", *texts, ""]), encoding="utf-8")
    return path


def test_further_texts_are_answered_and_learned_from(
    origin: TextClassifier, dataset: Dataset, student: Student, tmp_path: Path,
    softened: list[FloatArray],
) -> None:  # fmt: skip
    path = further(tmp_path / "more.csv", "so glad", "i cried", "late again")
    without = student()
    made = student(unlabelled=path)
    assert [len(soft) for soft in softened] == [36, 39]
    texts = [*dataset.train.texts, "so glad", "i cried", "late again"]
    assert softened[1] == pytest.approx(softmax(origin.logits(texts) / 3), abs=1e-6)
    assert not equal(made, without)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        ("sentence\nso glad\n", "text"),
        ("text\nso,glad\n", "line 2"),
        ("", "empty"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(
    student: Student, tmp_path: Path, asked: list[Path], content: str | None, says: str
) -> None:
    path = tmp_path / "more.csv"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=says) as caught:
        student(unlabelled=path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert asked == []


# What is kept of the teachers


def kept_answers(workspace: Path) -> list[Path]:
    return sorted(workspace.parent.glob(".logits-*.safetensors"))


def test_a_teacher_is_asked_once(
    student: Student, tiny_run: Path, asked: list[Path], workspace: Path
) -> None:
    first = student()
    assert asked == [tiny_run]
    assert len(kept_answers(workspace)) == 1
    # Other flags, and the same teacher in another place, change nothing about its answers.
    assert equal(student(), first)
    student(alpha=0.2, temperature=1.0, seed=3)
    student(teachers=[tiny_run / MODEL])
    assert asked == [tiny_run]


def test_other_texts_and_other_weights_are_asked_for(
    dataset: Dataset, student: Student, tiny_run: Path, tmp_path: Path, asked: list[Path]
) -> None:
    student()
    student(unlabelled=further(tmp_path / "more.csv", "so glad"))
    student(unlabelled=further(tmp_path / "more.csv", "so sad"))
    assert len(asked) == 3
    texts = dataset.train.texts
    swapped = replace(dataset.train, texts=(texts[1], texts[0], *texts[2:]))
    student(replace(dataset, train=swapped))
    assert len(asked) == 4
    # Where one text ends and the next begins counts as well.
    joined = replace(dataset.train, texts=(texts[0] + texts[1][:1], texts[1][1:], *texts[2:]))
    student(replace(dataset, train=joined))
    assert len(asked) == 5
    path = teacher(tiny_run, tmp_path / "another")
    student(teachers=[path])
    student(teachers=[path, tiny_run])
    assert asked[5:] == [path]


@pytest.mark.parametrize("damage", ["cut", "junk", "empty", "foreign"])
def test_damaged_answers_are_asked_for_again(
    student: Student, tiny_run: Path, asked: list[Path], workspace: Path, damage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    first = student()
    (path,) = kept_answers(workspace)
    whole = path.read_bytes()
    path.write_bytes(
        {
            "cut": whole[:-7],
            "junk": b"\xff" * len(whole),
            "empty": b"",
            "foreign": safetensors.numpy.save({"others": np.zeros(3, np.float32)}),
        }[damage]
    )
    with caplog.at_level(logging.WARNING, "featherweight"):
        second = student()
    (warning,) = [it.message for it in caplog.records if it.levelno == logging.WARNING]
    assert str(path) in warning
    assert asked == [tiny_run, tiny_run]
    assert equal(first, second)
    assert path.read_bytes() == whole


def test_what_is_kept_are_the_logits_in_the_order_of_the_data(
    origin: TextClassifier, dataset: Dataset, student: Student, workspace: Path
) -> None:
    student()
    (path,) = kept_answers(workspace)
    kept = safetensors.torch.load_file(path)
    assert kept.keys() == {"logits"}
    assert np.array_equal(kept["logits"].numpy(), origin.logits(dataset.train.texts))


def test_a_refused_teacher_leaves_no_answers(
    student: Student, tiny_run: Path, tmp_path: Path, workspace: Path
) -> None:
    path = teacher(tiny_run, tmp_path / "other", labels=("a", "b", "c"))
    with pytest.raises(FeatherweightError):
        student(teachers=[path])
    assert kept_answers(workspace) == []
