"""Predictions of a bundle: independent of batches and threads, for any list of strings."""

import itertools
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.bundle_files import read
from edge.export import EDGE_CASES
from edge.runtime import Bundle, load
from featherweight import load as load_run
from featherweight.errors import DataError, UsageError

ROOT = Path(__file__).parents[2]
TEXTS = [
    *EDGE_CASES,
    "i am so happy today",
    "i miss my dog",
    "stop it, i hate this",
    "happy " * 127,
]
ROUNDING = 1e-5  # of a probability, in different batches


@pytest.fixture(scope="module")
def bundle(exported: Path) -> Bundle:
    return load(exported)


def random_texts(count: int) -> list[str]:
    """Returns texts of any characters, including lone surrogates."""
    generator = random.Random(0)
    ranges = [(0, 0x7F), (0, 0x24F), (0x300, 0x36F), (0x1F300, 0x1FAFF), (0, 0x10FFFF)]

    def character() -> str:
        return chr(generator.randint(*generator.choice(ranges)))

    return ["".join(character() for _ in range(generator.randint(0, 30))) for _ in range(count)]


def test_probabilities_sum_to_one_and_agree_with_the_labels(bundle: Bundle, tiny_run: Path) -> None:
    assert tuple(bundle.classes_) == load_run(tiny_run, "cpu").labels
    probabilities = bundle.predict_proba(TEXTS)
    assert probabilities.shape == (len(TEXTS), 3)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(len(TEXTS)))
    assert bundle.classes_[probabilities.argmax(axis=1)].tolist() == bundle.predict(TEXTS)


def test_a_folder_and_a_zip_file_have_equal_content(exported: Path, exported_zip: Path) -> None:
    assert read(exported) == read(exported_zip)
    probabilities = [load(path).predict_proba(TEXTS) for path in (exported, exported_zip)]
    assert probabilities[0] == pytest.approx(probabilities[1], abs=ROUNDING)


def test_an_empty_list_gives_no_predictions(bundle: Bundle) -> None:
    assert bundle.predict([]) == []
    assert bundle.predict_proba([]).shape == (0, 3)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, len(TEXTS) * 4), max_size=8))
def test_any_split_of_a_list_gives_equal_probabilities(bundle: Bundle, cuts: list[int]) -> None:
    texts = random.Random(1).sample(TEXTS * 4, len(TEXTS) * 4)
    whole = bundle.predict_proba(texts)
    bounds = sorted({0, len(texts), *cuts})
    parts = [bundle.predict_proba(texts[start:end]) for start, end in itertools.pairwise(bounds)]
    assert np.concatenate(parts) == pytest.approx(whole, abs=ROUNDING)


def test_chunks_of_a_long_list_keep_their_order(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = TEXTS * 3
    whole = bundle.predict_proba(texts)
    monkeypatch.setattr("edge.runtime._CHUNK_TEXTS", 7)
    assert bundle.predict_proba(texts) == pytest.approx(whole, abs=ROUNDING)


def test_any_string_has_a_prediction(bundle: Bundle) -> None:
    texts = random_texts(10_000)
    assert any("\ud800" <= letter <= "\udfff" for text in texts for letter in text)
    probabilities = bundle.predict_proba(texts)
    assert probabilities.shape == (10_000, 3)
    assert np.isfinite(probabilities).all()


def test_sixteen_threads_get_the_results_of_one(exported: Path) -> None:
    texts = TEXTS + random_texts(300)
    expected = load(exported).predict_proba(texts)
    shared = load(exported)  # with an empty token cache
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda _: shared.predict_proba(texts), range(32)))
    assert all(result == pytest.approx(expected, abs=ROUNDING) for result in results)


def test_labels_below_the_minimum_confidence_are_empty(bundle: Bundle) -> None:
    confidences = bundle.predict_proba(TEXTS).max(axis=1)
    threshold = float(np.median(confidences))
    predictions = bundle.predict(TEXTS, min_confidence=threshold)
    assert predictions == [
        label if confidence >= threshold else ""
        for label, confidence in zip(bundle.predict(TEXTS), confidences, strict=True)
    ]
    assert set(predictions) > {""}


def test_input_other_than_a_list_of_strings_is_refused(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="list of texts"):
        bundle.predict("i am so happy")
    with pytest.raises(DataError, match="float"):
        bundle.predict(["fine", float("nan")])  # type: ignore[list-item]


def test_the_token_cache_is_bounded(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.runtime._MAX_CACHED", 10)
    bundle = load(exported)
    texts = [f"word{number} happy" for number in range(50)]
    first = bundle.predict_proba(texts)
    assert len(bundle._token_cache) == 10
    assert bundle.predict_proba(texts) == pytest.approx(first, abs=ROUNDING)


def test_loads_neither_torch_nor_the_rest_of_the_project(
    exported_zip: Path, environment: dict[str, str]
) -> None:
    code = (
        "import sys; from edge.runtime import load\n"
        f"print(load({str(exported_zip)!r}).predict(['so sad']))\n"
        "print({name.split('.')[0] for name in sys.modules} & "
        "{'torch', 'onnx', 'scipy', 'sklearn', 'transformers', 'lstm', 'compress'})\n"
        "print(*(name for name in sys.modules if name.split('.')[0] == 'featherweight'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    prediction, heavy, own = done.stdout.splitlines()
    assert prediction in ("['joy']", "['sadness']", "['anger']")
    assert (heavy, done.stderr) == ("set()", "")
    # `moved` keeps old module names importable.
    modules = {"featherweight", *(f"featherweight.{name}" for name in ("data", "errors", "moved"))}
    assert set(own.split()) == modules | {
        "featherweight.data.texts",
        "featherweight.data.token_patterns",
        "featherweight.data.tokenizer_json",
    }  # fmt: skip
