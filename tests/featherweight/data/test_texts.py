"""Texts given from Python: every iterable equals its `list`, and other objects are refused."""

import asyncio
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import datasets
import httpx
import numpy as np
import pandas
import pyarrow
import pytest

from compress.onnx.conversion import export as export_onnx
from edge.config import ExportConfig, ServeConfig
from edge.export import export
from edge.runtime import Bundle
from edge.runtime import load as load_bundle
from edge.serving.serve import application
from featherweight import load
from featherweight.baselines import TfidfSVM
from featherweight.classifier import Classifier
from featherweight.data.dataset import Split
from featherweight.data.texts import as_texts
from featherweight.errors import DataError, UsageError
from transformer_eval.features import FrozenFeatures
from transformer_eval.frozen_encoder import Encoder
from transformer_eval.model_files import fetch
from transformer_eval.random_weights import build
from transformer_eval.registry import Pretrained

TEXTS = ["so happy today", "i miss my dog", "", "stop it, i hate this", "so glad"]
ITERABLES: dict[str, Callable[[list[str]], Iterable[str]]] = {
    "tuple": tuple,
    "generator": lambda texts: (text for text in texts),
    "map": lambda texts: map(str, texts),
    "ndarray": np.array,
    "ndarray of objects": lambda texts: np.array(texts, dtype=object),
    "Series": pandas.Series,
    "Arrow array": pyarrow.array,
    "Arrow column": lambda texts: pyarrow.table({"text": texts})["text"],
    "datasets column": lambda texts: datasets.Dataset.from_dict({"text": texts})["text"],
}
FRAME = pandas.DataFrame({"text": TEXTS, "label": range(len(TEXTS))})


def tiny_bert(folder: Path) -> Classifier:
    """Returns a tiny BERT with random weights, saved in a folder."""
    sizes = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "vocab_size": 300, "initializer_range": 0.5,
    }  # fmt: skip
    build(Pretrained("acme/tiny", "bert", sizes), TEXTS, ("joy", "sadness"), folder)
    return load(folder, "cpu")


def frozen_features(folder: Path) -> Classifier:
    """Returns a linear head with random weights on a tiny BERT."""
    tiny_bert(folder)
    encoder = Encoder(fetch(str(folder)), "mean", 128, "cpu")
    weights = np.random.default_rng(0).normal(size=(2, 16)).astype(np.float32)
    head = {"coefficients": weights, "intercepts": np.zeros(2, np.float32)}
    return FrozenFeatures("frozen", ("joy", "sadness"), encoder, head)


def onnx(origin: Classifier, folder: Path) -> Classifier:
    """Returns a classifier as ONNX files in a folder."""
    export_onnx(origin, None, "onnx", folder)
    return load(folder)


def baseline() -> Classifier:
    split = Split("train", tuple(TEXTS), np.array([0, 1, 0, 1, 0]), ("joy", "sadness"))
    return TfidfSVM(split, ("joy", "sadness"))


def bundle(run: Path, folder: Path) -> Path:
    return export(ExportConfig(run, folder / "bundle"))


# Each makes a model of the LSTM run, or of its own, in a folder.
MODELS: dict[str, Callable[[Path, Path], Classifier | Bundle]] = {
    "LSTM": lambda run, _: load(run, "cpu"),
    "transformer": lambda _, folder: tiny_bert(folder),
    "features": lambda _, folder: frozen_features(folder),
    "ONNX of an LSTM": lambda run, folder: onnx(load(run, "cpu"), folder),
    "ONNX of a transformer": lambda _, folder: onnx(tiny_bert(folder / "origin"), folder),
    "bundle": lambda run, folder: load_bundle(bundle(run, folder)),
    "bundle as a classifier": lambda run, folder: load(bundle(run, folder)),
    "baseline": lambda *_: baseline(),
}


@pytest.fixture(scope="module", params=MODELS)
def model(
    request: pytest.FixtureRequest, tiny_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Classifier | Bundle:
    return MODELS[request.param](tiny_run, tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("kind", ITERABLES)
def test_every_iterable_equals_its_list(model: Any, kind: str) -> None:
    make = ITERABLES[kind]
    assert as_texts(make(TEXTS)) == TEXTS
    assert model.predict(make(TEXTS)) == model.predict(TEXTS)
    assert np.array_equal(model.predict_proba(make(TEXTS)), model.predict_proba(TEXTS))


@pytest.mark.parametrize(
    "reordered",
    [
        lambda series: series.sample(frac=1, random_state=1),
        lambda series: series.sort_values(),
        lambda series: series.iloc[[3, 0, 4]],
        lambda series: series[series != ""],
        lambda series: series.set_axis([7, 7, 7, 7, 7]),
    ],
)
def test_series_is_taken_in_its_own_order(model: Any, reordered: Callable[..., Any]) -> None:
    series = reordered(pandas.Series(TEXTS))
    assert np.array_equal(model.predict_proba(series), model.predict_proba(series.tolist()))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("so happy", "give a list of texts, not one str"),
        (b"so happy", "give a list of texts, not one bytes"),
        ({"text": "so happy"}, "give a list of texts, not one dict"),
        ({"so happy"}, "give a list of texts, not one set"),
        (None, "give a list of texts, not one NoneType"),
        (FRAME, "not a table with the columns text, label"),
        (pyarrow.Table.from_pandas(FRAME), "not a table with the columns text, label"),
        (datasets.Dataset.from_pandas(FRAME), "not a table with the columns text, label"),
    ],
)
def test_what_is_not_a_list_of_texts_is_refused(model: Any, texts: Any, message: str) -> None:
    for method in (model.predict, model.predict_proba, model.logits, model.known_words):
        with pytest.raises(UsageError, match=message) as caught:
            method(texts)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [None, float("nan"), 3, b"bytes", np.array(["a", "b"]), ["a"]])
def test_element_that_is_not_a_string_is_refused_with_its_index(model: Any, value: Any) -> None:
    for method in (model.predict, model.predict_proba, model.logits, model.known_words):
        with pytest.raises(DataError, match=r"^texts\[2\] is .*: give strings") as caught:
            method(["so happy", "", value])
        assert "\n" not in str(caught.value)


def test_missing_value_of_a_series_is_refused(model: Any) -> None:
    with pytest.raises(DataError, match=r"texts\[1\] is (nan|None)"):
        model.predict(pandas.Series(["so happy", None]))


def test_half_a_surrogate_pair_is_one_unknown_character(tiny_run: Path, model: Any) -> None:
    broken = ["so happy \ud83d", "\udc00"]
    replaced = ["so happy ?", "?"]
    assert np.array_equal(model.predict_proba(broken), model.predict_proba(replaced))
    assert model.known_words(broken).tolist() == model.known_words(replaced).tolist()


@pytest.mark.parametrize("kind", ["LSTM", "transformer", "features"])
def test_embeddings_of_a_series_are_those_of_its_list(
    tiny_run: Path, tmp_path: Path, kind: str
) -> None:
    classifier: Any = MODELS[kind](tiny_run, tmp_path / "model")
    series = pandas.Series(TEXTS).sample(frac=1, random_state=1)
    embeddings = [classifier.embed(classifier.encode(texts)) for texts in (series, series.tolist())]
    assert np.array_equal(*embeddings)
    with pytest.raises(UsageError, match="not one str"):
        classifier.encode("so happy")
    with pytest.raises(DataError, match=r"^texts\[1\] is None"):
        classifier.encode(["so happy", None])


def test_an_encoder_embeds_a_series_in_its_own_order(tmp_path: Path) -> None:
    tiny_bert(tmp_path / "model")
    encoder = Encoder(fetch(str(tmp_path / "model")), "mean", 128, "cpu")
    series = pandas.Series(TEXTS).sample(frac=1, random_state=1)
    expected = encoder.embed_all(series.tolist(), 2)
    assert np.array_equal(encoder.embed_all(series, 2), expected)
    assert np.array_equal(encoder.embed_cached(series, 2, tmp_path / "cache"), expected)
    with pytest.raises(UsageError, match="not a table with the columns text, label"):
        encoder.embed_all(FRAME, 2)


@pytest.mark.parametrize("kind", ["LSTM", "transformer", "bundle as a classifier"])
def test_the_service_answers_as_the_classifier(tiny_run: Path, tmp_path: Path, kind: str) -> None:
    classifier: Any = MODELS[kind](tiny_run, tmp_path / "model")

    async def answers(texts: object) -> httpx.Response:
        transport = httpx.ASGITransport(application(classifier, ServeConfig()))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            body = json.dumps({"texts": texts})  # escapes half of a surrogate pair
            headers = {"content-type": "application/json"}
            return await client.post("/predict", content=body, headers=headers)

    texts = ["so happy \ud83d", *TEXTS]
    response = asyncio.run(answers(texts))
    probabilities = [each["probabilities"] for each in response.json()["predictions"]]
    np.testing.assert_allclose(probabilities, classifier.predict_proba(texts), atol=1e-5)
    for refused in ("so happy", ["so happy", None], {"text": "so happy"}, [["so happy"]]):
        assert asyncio.run(answers(refused)).is_client_error
