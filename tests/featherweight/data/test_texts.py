"""Texts given from Python: every iterable equals its `list`, and other objects are refused."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pyarrow
import pytest

from edge.config import ExportConfig
from edge.export import export
from edge.runtime import Bundle
from edge.runtime import load as load_bundle
from featherweight import load
from featherweight.baselines import TfidfSVM
from featherweight.classifier import Classifier
from featherweight.data.dataset import Split
from featherweight.data.texts import as_texts
from featherweight.errors import DataError, UsageError

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


@pytest.fixture(scope="module", params=["LSTM", "bundle as a classifier", "bundle", "baseline"])
def model(
    request: pytest.FixtureRequest, tiny_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Classifier | Bundle:
    if request.param == "LSTM":
        return load(tiny_run, "cpu")
    if request.param == "baseline":
        split = Split("train", tuple(TEXTS), np.array([0, 1, 0, 1, 0]), ("joy", "sadness"))
        return TfidfSVM(split, ("joy", "sadness"))
    path = export(ExportConfig(tiny_run, tmp_path_factory.mktemp("bundles") / "bundle"))
    return load_bundle(path) if request.param == "bundle" else load(path)


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
    for method in (model.predict, model.predict_proba, model.logits):
        with pytest.raises(UsageError, match=message) as caught:
            method(texts)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [None, float("nan"), 3, b"bytes", np.array(["a", "b"]), ["a"]])
def test_element_that_is_not_a_string_is_refused_with_its_index(model: Any, value: Any) -> None:
    with pytest.raises(DataError, match=r"^texts\[2\] is .*: give strings") as caught:
        model.predict(["so happy", "", value])
    assert "\n" not in str(caught.value)


def test_missing_value_of_a_series_is_refused(model: Any) -> None:
    with pytest.raises(DataError, match=r"texts\[1\] is (nan|None)"):
        model.predict(pandas.Series(["so happy", None]))


def test_half_a_surrogate_pair_is_one_unknown_character(tiny_run: Path, model: Any) -> None:
    broken = ["so happy \ud83d", "\udc00"]
    replaced = ["so happy ?", "?"]
    assert np.array_equal(model.predict_proba(broken), model.predict_proba(replaced))
