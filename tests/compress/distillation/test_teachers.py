import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from compress.config import CompressConfig
from compress.distillation import teachers
from compress.distillation.teachers import (
    UNLABELED,
    DistillationData,
    remove_stale_answers,
    teacher_logits,
)
from compress.onnx.methods import exported
from featherweight import load
from featherweight.classifier import softmax
from featherweight.data.dataset import Dataset
from featherweight.errors import DataError, FeatherweightError, UsageError, WeightsError
from featherweight.run import CONFIG, MODEL, ONNX, TRANSFORMER, Run
from lstm.classifier import TextClassifier
from transformer_eval.random_weights import build
from transformer_eval.registry import Pretrained

Ask = Callable[..., DistillationData]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "compressed" / ".teachers"


@pytest.fixture
def lesson(dataset: Dataset, tiny_run: Path, folder: Path) -> Ask:
    """Asks teachers, or the tiny run, with some flags."""

    def make(*given: Path, data: Dataset = dataset, **flags: Any) -> DistillationData:
        config = CompressConfig(method="distill", **flags)
        return teacher_logits(given or [tiny_run], data, config, folder, "cpu")

    return make


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Keeps which teachers were loaded."""
    kept = []

    def watched(weights: Path, *given: Any) -> Any:
        kept.append(weights)
        return load(weights, *given)

    monkeypatch.setattr(teachers, "load", watched)
    return kept


@pytest.fixture
def bert(dataset: Dataset, tmp_path: Path) -> Path:
    """A folder of a tiny transformer, whose labels have another order than the data's."""
    sizes = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 48, "vocab_size": 600, "initializer_range": 0.5,
    }  # fmt: skip
    labels = ("sadness", "anger", "joy")
    build(Pretrained("acme/tiny", "bert", sizes), dataset.train.texts, labels, tmp_path / "bert")
    return tmp_path / "bert"


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


def test_a_lesson_holds_the_training_split_and_what_the_teacher_says_of_it(
    origin: TextClassifier, dataset: Dataset, lesson: Ask
) -> None:
    made = lesson(temperature=2.0)
    assert made.texts == dataset.train.texts
    assert np.array_equal(made.labels, dataset.train.labels)
    assert made.soft.dtype == np.float32
    assert made.soft == pytest.approx(softmax(origin.logits(dataset.train.texts) / 2), abs=1e-6)


def test_two_teachers_count_as_the_mean_of_their_softened_answers(
    dataset: Dataset, lesson: Ask, tiny_run: Path, tmp_path: Path
) -> None:
    paths = [teacher(tiny_run, tmp_path / name, seed) for seed, name in enumerate("ab")]
    soft = lesson(*paths, temperature=0.1).soft
    logits = [load(path, "cpu").logits(dataset.train.texts) for path in paths]
    expected = (softmax(logits[0] / 0.1) + softmax(logits[1] / 0.1)) / 2
    assert soft == pytest.approx(expected, abs=1e-6)
    assert soft != pytest.approx(softmax((logits[0] + logits[1]) / 0.2), abs=1e-3)


def test_labels_in_another_order_are_matched_by_name(
    lesson: Ask, tiny_run: Path, tmp_path: Path
) -> None:
    plain = teacher(tiny_run, tmp_path / "plain")
    permuted = teacher(tiny_run, tmp_path / "permuted", order=[2, 0, 1])
    assert load(plain).labels != load(permuted).labels
    soft = lesson(plain).soft
    assert soft == pytest.approx(lesson(permuted).soft, abs=1e-6)
    assert len(set(soft.argmax(axis=1).tolist())) > 1


def test_models_of_all_kinds_teach_together(
    origin: TextClassifier, dataset: Dataset, lesson: Ask, tiny_run: Path, bert: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    (tmp_path / "work").mkdir()
    exported(origin, "onnx", False, tmp_path / "work")  # as `work/onnx`
    soft = lesson(tiny_run, bert, tmp_path / "work", temperature=1.0).soft
    theirs = softmax(load(bert, "cpu").logits(dataset.train.texts)[:, [1, 2, 0]])
    own = softmax(origin.logits(dataset.train.texts))
    assert soft == pytest.approx((2 * own + theirs) / 3, abs=1e-4)


@pytest.mark.parametrize("labels", [("anger", "joy", "gloom"), ("Anger", "joy", "sadness")])
def test_a_teacher_of_other_classes_is_refused_and_leaves_nothing(
    lesson: Ask, tiny_run: Path, tmp_path: Path, folder: Path, labels: tuple[str, ...]
) -> None:
    path = teacher(tiny_run, tmp_path / "other", labels=labels)
    with pytest.raises(UsageError, match="--teachers") as caught:
        lesson(path, tiny_run)
    for part in (str(path), *labels, "sadness"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not folder.exists()


def test_a_teacher_that_is_not_there_or_damaged_is_one_line(
    lesson: Ask, tiny_run: Path, tmp_path: Path
) -> None:
    damaged = teacher(tiny_run, tmp_path / "damaged")
    content = (damaged / MODEL).read_bytes()
    (damaged / MODEL).write_bytes(content[:-40])
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "nowhere", tmp_path / "empty", damaged):
        with pytest.raises(WeightsError) as caught:
            lesson(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


# Further texts


def further(path: Path, *texts: str) -> Path:
    path.write_text("\n".join(["text", *texts, ""]), encoding="utf-8")
    return path


def test_further_texts_are_answered_and_have_no_label(
    origin: TextClassifier, dataset: Dataset, lesson: Ask, tmp_path: Path
) -> None:
    made = lesson(unlabelled=further(tmp_path / "more.csv", "so glad", "i cried", "late again"))
    assert made.texts == (*dataset.train.texts, "so glad", "i cried", "late again")
    assert made.labels.tolist() == [*dataset.train.labels, *[UNLABELED] * 3]
    assert made.soft == pytest.approx(softmax(origin.logits(made.texts) / 3), abs=1e-6)


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
    lesson: Ask, tmp_path: Path, asked: list[Path], content: str | None, says: str
) -> None:
    path = tmp_path / "more.csv"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=says) as caught:
        lesson(unlabelled=path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert asked == []


# What is kept


def test_a_teacher_is_asked_once(
    origin: TextClassifier, dataset: Dataset, lesson: Ask, tiny_run: Path, asked: list[Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    first = lesson()
    assert asked == [tiny_run]
    (path,) = first.files
    (logits,) = safetensors.numpy.load_file(path).values()
    assert np.array_equal(logits, origin.logits(dataset.train.texts))
    # Other flags, the same teacher in another place, and a test of it change no answer.
    assert np.array_equal(lesson().soft, first.soft)
    lesson(alpha=0.2, temperature=1.0, seed=3)
    lesson(tiny_run / MODEL)
    moved = Run(Path(shutil.copytree(tiny_run, tmp_path / "moved")))
    moved.write_json("evaluation.json", {})
    lesson(moved.path)
    assert asked == [tiny_run]


def test_other_texts_and_other_weights_are_asked_for(
    dataset: Dataset, lesson: Ask, tiny_run: Path, tmp_path: Path, asked: list[Path]
) -> None:
    lesson()
    lesson(unlabelled=further(tmp_path / "more.csv", "so glad"))
    lesson(unlabelled=further(tmp_path / "more.csv", "so sad"))
    assert len(asked) == 3
    texts = dataset.train.texts
    swapped = replace(dataset.train, texts=(texts[1], texts[0], *texts[2:]))
    lesson(data=replace(dataset, train=swapped))
    assert len(asked) == 4
    # Where one text ends and the next begins counts as well.
    joined = replace(dataset.train, texts=(texts[0] + texts[1][:1], texts[1][1:], *texts[2:]))
    lesson(data=replace(dataset, train=joined))
    assert len(asked) == 5
    path = teacher(tiny_run, tmp_path / "another")
    lesson(path)
    lesson(path, tiny_run)
    assert asked[5:] == [path]


@pytest.mark.parametrize("place", ["", TRANSFORMER])
def test_each_file_of_a_transformer_counts(
    lesson: Ask, bert: Path, tmp_path: Path, asked: list[Path], place: str
) -> None:
    path = tmp_path / "it"
    shutil.copytree(bert, path / place)
    lesson(path)
    lesson(path)
    assert len(asked) == 1
    config = Run(path / place).read_json(CONFIG)
    names = config["id2label"]
    config["id2label"] = {"0": names["1"], "1": names["0"], "2": names["2"]}
    Run(path / place).write_json(CONFIG, config)
    lesson(path)
    assert len(asked) == 2


def test_a_graph_that_was_exported_anew_is_asked_again(
    origin: TextClassifier, lesson: Ask, tmp_path: Path, asked: list[Path]
) -> None:
    exported(origin, "onnx", False, tmp_path)
    before = lesson(tmp_path)
    with torch.no_grad():
        origin.module.head.weight *= 2
    shutil.rmtree(tmp_path / ONNX)
    exported(origin, "onnx", False, tmp_path)
    assert before.soft != pytest.approx(lesson(tmp_path).soft, abs=1e-3)
    assert len(asked) == 2


@pytest.mark.parametrize("damage", ["cut", "junk", "empty", "foreign"])
def test_damaged_answers_are_asked_for_again(
    lesson: Ask, tiny_run: Path, asked: list[Path], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = lesson()
    (path,) = first.files
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
        second = lesson()
    (warning,) = [it.message for it in caplog.records if it.levelno == logging.WARNING]
    assert str(path) in warning
    assert asked == [tiny_run, tiny_run]
    assert np.array_equal(first.soft, second.soft)
    assert path.read_bytes() == whole


def test_only_the_answers_of_a_lesson_are_left(
    lesson: Ask, tiny_run: Path, tmp_path: Path, folder: Path
) -> None:
    first = lesson(unlabelled=further(tmp_path / "more.csv", "so glad"))
    second = lesson(teacher(tiny_run, tmp_path / "another"), tiny_run)
    assert len(list(folder.iterdir())) == 3
    remove_stale_answers(second)
    assert {*folder.iterdir()} == {*second.files}
    remove_stale_answers(first)
    assert list(folder.iterdir()) == []


def test_a_lesson_is_known_by_texts_labels_and_answers(
    dataset: Dataset, lesson: Ask, tiny_run: Path, tmp_path: Path
) -> None:
    path = teacher(tiny_run, tmp_path / "another")
    other = replace(dataset.train, labels=dataset.train.labels[::-1].copy())
    made = [
        lesson(),
        lesson(path),
        lesson(temperature=1.0),
        lesson(data=replace(dataset, train=other)),
        lesson(unlabelled=further(tmp_path / "more.csv", "so glad")),
    ]
    assert len({it.sha256 for it in made}) == 5
    assert lesson().sha256 == made[0].sha256


def test_a_first_teacher_is_kept_although_the_second_is_refused(
    lesson: Ask, tiny_run: Path, tmp_path: Path, asked: list[Path]
) -> None:
    other = teacher(tiny_run, tmp_path / "other", labels=("a", "b", "c"))
    with pytest.raises(FeatherweightError):
        lesson(tiny_run, other)
    lesson()
    assert asked == [tiny_run, other]
