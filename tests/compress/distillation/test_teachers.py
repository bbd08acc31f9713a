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
    distillation_data,
    remove_stale_predictions,
)
from compress.onnx.conversion import export
from compress.origin import Origin
from featherweight import load
from featherweight.classifier import softmax
from featherweight.data.dataset import Dataset
from featherweight.errors import DataError, FeatherweightError, UsageError, WeightsError
from featherweight.run import CONFIG, MODEL, ONNX, TRANSFORMER, Run
from lstm.classifier import TextClassifier
from tests.helpers.variants import BERT
from transformer_eval.random_weights import build
from transformer_eval.registry import Pretrained

Learn = Callable[..., DistillationData]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "compressed" / ".teachers"


@pytest.fixture
def learn_from(dataset: Dataset, tiny_run: Path, origin: TextClassifier, folder: Path) -> Learn:
    """Returns the data for a student of the tiny run, by some teachers and flags."""

    def make(*teachers: Path, data: Dataset = dataset, **flags: Any) -> DistillationData:
        config = CompressConfig(method="distill", teachers=list(teachers), **flags)
        return distillation_data(Origin(Run(tiny_run), origin, data), config, folder)

    return make


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Records which teachers are loaded."""
    paths = []

    def watched(weights: Path, *args: Any) -> Any:
        paths.append(weights)
        return load(weights, *args)

    monkeypatch.setattr(teachers, "load", watched)
    return paths


@pytest.fixture(scope="module")
def permuted_bert(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny transformer whose labels have another order than the data's."""
    path = tmp_path_factory.mktemp("permuted") / "bert"
    labels = ("sadness", "anger", "joy")
    build(Pretrained("acme/tiny", "bert", BERT), dataset.train.texts, labels, path)
    return path


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
    classifier.labels = changes.get("labels", tuple(classifier.labels[index] for index in order))
    classifier.save(path / MODEL)
    return path


def test_data_is_the_training_split_with_the_probabilities_of_the_teacher(
    origin: TextClassifier, dataset: Dataset, learn_from: Learn
) -> None:
    made = learn_from(temperature=2.0)
    assert made.split.texts == dataset.train.texts
    assert np.array_equal(made.split.labels, dataset.train.labels)
    assert made.soft.dtype == np.float32
    assert made.soft == pytest.approx(softmax(origin.logits(dataset.train.texts) / 2), abs=1e-6)


def test_probabilities_of_two_teachers_are_averaged(
    dataset: Dataset, learn_from: Learn, tiny_run: Path, tmp_path: Path
) -> None:
    paths = [teacher(tiny_run, tmp_path / name, seed) for seed, name in enumerate("ab")]
    soft = learn_from(*paths, temperature=0.1).soft
    logits = [load(path, "cpu").logits(dataset.train.texts) for path in paths]
    expected = (softmax(logits[0] / 0.1) + softmax(logits[1] / 0.1)) / 2
    assert soft == pytest.approx(expected, abs=1e-6)
    assert soft != pytest.approx(softmax((logits[0] + logits[1]) / 0.2), abs=1e-3)


def test_labels_in_another_order_are_matched_by_name(
    learn_from: Learn, tiny_run: Path, tmp_path: Path
) -> None:
    plain = teacher(tiny_run, tmp_path / "plain")
    permuted = teacher(tiny_run, tmp_path / "permuted", order=[2, 0, 1])
    assert load(plain).labels != load(permuted).labels
    soft = learn_from(plain).soft
    assert soft == pytest.approx(learn_from(permuted).soft, abs=1e-6)
    assert len(set(soft.argmax(axis=1).tolist())) > 1


def test_teachers_of_different_kinds(
    origin: TextClassifier, dataset: Dataset, learn_from: Learn, tiny_run: Path,
    permuted_bert: Path, tmp_path: Path,
) -> None:  # fmt: skip
    (tmp_path / "work").mkdir()
    export(origin, None, "onnx", tmp_path / "work")  # writes `work/onnx`
    soft = learn_from(tiny_run, permuted_bert, tmp_path / "work", temperature=1.0).soft
    other = softmax(load(permuted_bert, "cpu").logits(dataset.train.texts)[:, [1, 2, 0]])
    own = softmax(origin.logits(dataset.train.texts))
    assert soft == pytest.approx((2 * own + other) / 3, abs=1e-4)


@pytest.mark.parametrize("labels", [("anger", "joy", "gloom"), ("Anger", "joy", "sadness")])
def test_a_teacher_with_other_labels_is_refused_and_nothing_is_cached(
    learn_from: Learn, tiny_run: Path, tmp_path: Path, folder: Path, labels: tuple[str, ...]
) -> None:
    path = teacher(tiny_run, tmp_path / "other", labels=labels)
    with pytest.raises(UsageError, match="--teachers") as caught:
        learn_from(path, tiny_run)
    for part in (str(path), *labels, "sadness"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not folder.exists()


def test_a_missing_or_damaged_teacher_is_refused_in_one_line(
    learn_from: Learn, tiny_run: Path, tmp_path: Path
) -> None:
    damaged = teacher(tiny_run, tmp_path / "damaged")
    content = (damaged / MODEL).read_bytes()
    (damaged / MODEL).write_bytes(content[:-40])
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "nowhere", tmp_path / "empty", damaged):
        with pytest.raises(WeightsError) as caught:
            learn_from(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


# Additional texts


def additional(path: Path, *texts: str) -> Path:
    path.write_text("\n".join(["text", *texts, ""]), encoding="utf-8")
    return path


def test_additional_texts_have_no_label(
    origin: TextClassifier, dataset: Dataset, learn_from: Learn, tmp_path: Path
) -> None:
    made = learn_from(
        unlabelled=additional(tmp_path / "more.csv", "so glad", "i cried", "late again")
    )
    assert made.split.texts == (*dataset.train.texts, "so glad", "i cried", "late again")
    assert made.split.labels.tolist() == [*dataset.train.labels, *[UNLABELED] * 3]
    assert made.soft == pytest.approx(softmax(origin.logits(made.split.texts) / 3), abs=1e-6)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        ("sentence\nso glad\n", "text"),
        ("text\nso,glad\n", "line 2"),
        ("", "empty"),
    ],
)
def test_an_unusable_file_is_refused_in_one_line(
    learn_from: Learn, tmp_path: Path, loaded: list[Path], content: str | None, says: str
) -> None:
    path = tmp_path / "more.csv"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=says) as caught:
        learn_from(unlabelled=path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert loaded == []


# The cache


def test_predictions_are_cached(
    origin: TextClassifier, dataset: Dataset, learn_from: Learn, tiny_run: Path, loaded: list[Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    first = learn_from()
    assert loaded == [tiny_run]
    (path,) = first.files
    (logits,) = safetensors.numpy.load_file(path).values()
    assert np.array_equal(logits, origin.logits(dataset.train.texts))
    # Other flags, another path and a later evaluation of the teacher do not matter.
    assert np.array_equal(learn_from().soft, first.soft)
    learn_from(alpha=0.2, temperature=1.0, seed=3)
    learn_from(tiny_run / MODEL)
    moved = Run(Path(shutil.copytree(tiny_run, tmp_path / "moved")))
    moved.write_json("evaluation.json", {})
    learn_from(moved.path)
    assert loaded == [tiny_run]


def test_other_texts_and_other_weights_are_predicted_again(
    dataset: Dataset, learn_from: Learn, tiny_run: Path, tmp_path: Path, loaded: list[Path]
) -> None:
    learn_from()
    learn_from(unlabelled=additional(tmp_path / "more.csv", "so glad"))
    learn_from(unlabelled=additional(tmp_path / "more.csv", "so sad"))
    assert len(loaded) == 3
    texts = dataset.train.texts
    swapped = replace(dataset.train, texts=(texts[1], texts[0], *texts[2:]))
    learn_from(data=replace(dataset, train=swapped))
    assert len(loaded) == 4
    # The boundaries between texts matter, too.
    joined = replace(dataset.train, texts=(texts[0] + texts[1][:1], texts[1][1:], *texts[2:]))
    learn_from(data=replace(dataset, train=joined))
    assert len(loaded) == 5
    path = teacher(tiny_run, tmp_path / "another")
    learn_from(path)
    learn_from(path, tiny_run)
    assert loaded[5:] == [path]


@pytest.mark.parametrize("place", ["", TRANSFORMER])
def test_a_changed_file_of_a_transformer_is_predicted_again(
    learn_from: Learn, permuted_bert: Path, tmp_path: Path, loaded: list[Path], place: str
) -> None:
    path = tmp_path / "copy"
    shutil.copytree(permuted_bert, path / place)
    learn_from(path)
    learn_from(path)
    assert len(loaded) == 1
    config = Run(path / place).read_json(CONFIG)
    names = config["id2label"]
    config["id2label"] = {"0": names["1"], "1": names["0"], "2": names["2"]}
    Run(path / place).write_json(CONFIG, config)
    learn_from(path)
    assert len(loaded) == 2


def test_a_graph_that_was_exported_again_is_predicted_again(
    origin: TextClassifier, learn_from: Learn, tmp_path: Path, loaded: list[Path]
) -> None:
    export(origin, None, "onnx", tmp_path)
    before = learn_from(tmp_path)
    with torch.no_grad():
        origin.module.head.weight *= 2
    shutil.rmtree(tmp_path / ONNX)
    export(origin, None, "onnx", tmp_path)
    assert before.soft != pytest.approx(learn_from(tmp_path).soft, abs=1e-3)
    assert len(loaded) == 2


@pytest.mark.parametrize("damage", ["cut", "junk", "empty", "foreign"])
def test_damaged_predictions_are_computed_again(
    learn_from: Learn,
    tiny_run: Path,
    loaded: list[Path],
    damage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = learn_from()
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
        second = learn_from()
    (warning,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert str(path) in warning
    assert loaded == [tiny_run, tiny_run]
    assert np.array_equal(first.soft, second.soft)
    assert path.read_bytes() == whole


def test_stale_predictions_are_removed(
    learn_from: Learn, tiny_run: Path, tmp_path: Path, folder: Path
) -> None:
    first = learn_from(unlabelled=additional(tmp_path / "more.csv", "so glad"))
    second = learn_from(teacher(tiny_run, tmp_path / "another"), tiny_run)
    assert len(list(folder.iterdir())) == 3
    remove_stale_predictions(second)
    assert {*folder.iterdir()} == {*second.files}
    remove_stale_predictions(first)
    assert list(folder.iterdir()) == []


def test_the_hash_depends_on_texts_labels_and_probabilities(
    dataset: Dataset, learn_from: Learn, tiny_run: Path, tmp_path: Path
) -> None:
    path = teacher(tiny_run, tmp_path / "another")
    other = replace(dataset.train, labels=dataset.train.labels[::-1].copy())
    made = [
        learn_from(),
        learn_from(path),
        learn_from(temperature=1.0),
        learn_from(data=replace(dataset, train=other)),
        learn_from(unlabelled=additional(tmp_path / "more.csv", "so glad")),
    ]
    assert len({data.sha256 for data in made}) == 5
    assert learn_from().sha256 == made[0].sha256


def test_predictions_of_a_teacher_stay_cached_if_the_next_is_refused(
    learn_from: Learn, tiny_run: Path, tmp_path: Path, loaded: list[Path]
) -> None:
    other = teacher(tiny_run, tmp_path / "other", labels=("a", "b", "c"))
    with pytest.raises(FeatherweightError):
        learn_from(tiny_run, other)
    learn_from()
    assert loaded == [tiny_run, other]
