"""What a bundle answers: what the run answers, however it is asked."""

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

from edge.golden import EDGE_CASES
from edge.runtime import Bundle, load, read
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


@pytest.fixture(scope="module")
def bundle(exported: Path) -> Bundle:
    return load(exported)


def random_texts(count: int) -> list[str]:
    """Texts of any characters, lone surrogates among them."""
    drawn = random.Random(0)
    ranges = [(0, 0x7F), (0, 0x24F), (0x300, 0x36F), (0x1F300, 0x1FAFF), (0, 0x10FFFF)]
    return [
        "".join(chr(drawn.randint(*drawn.choice(ranges))) for _ in range(drawn.randint(0, 30)))
        for _ in range(count)
    ]


def test_classes_are_the_labels_of_the_run(bundle: Bundle, tiny_run: Path) -> None:
    assert tuple(bundle.classes_) == load_run(tiny_run, "cpu").labels


def test_probabilities_sum_to_one_and_agree_with_the_answers(bundle: Bundle) -> None:
    probabilities = bundle.predict_proba(TEXTS)
    assert probabilities.shape == (len(TEXTS), 3)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(len(TEXTS)))
    assert bundle.classes_[probabilities.argmax(axis=1)].tolist() == bundle.predict(TEXTS)


def test_a_folder_and_a_zip_file_answer_the_same(exported: Path, exported_zip: Path) -> None:
    # Their graphs may differ, for each export measures anew.
    assert read(exported).keys() == read(exported_zip).keys()
    one, other = load(exported), load(exported_zip)
    assert one.predict_proba(TEXTS) == pytest.approx(other.predict_proba(TEXTS), abs=0.02)


def test_no_text_is_no_answer(bundle: Bundle) -> None:
    assert bundle.predict([]) == []
    assert bundle.predict_proba([]).shape == (0, 3)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, len(TEXTS) * 8), max_size=8))
def test_any_split_of_a_list_gets_equal_answers(bundle: Bundle, cuts: list[int]) -> None:
    texts = random.Random(1).sample(TEXTS * 8, len(TEXTS) * 8)
    whole = bundle.predict_proba(texts)
    bounds = sorted({0, len(texts), *cuts})
    parts = [bundle.predict_proba(texts[start:end]) for start, end in itertools.pairwise(bounds)]
    assert np.concatenate(parts) == pytest.approx(whole, abs=1e-6)


def test_lists_longer_than_its_window_keep_their_order(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = TEXTS * 3
    whole = bundle.predict_proba(texts)
    monkeypatch.setattr("edge.runtime._WINDOW", 7)
    assert bundle.predict_proba(texts) == pytest.approx(whole, abs=1e-6)


def test_any_string_gets_an_answer(bundle: Bundle) -> None:
    texts = random_texts(10_000)
    assert any("\ud800" <= letter <= "\udfff" for text in texts for letter in text)
    answers = bundle.predict(texts)
    assert len(answers) == 10_000
    assert set(answers) <= set(bundle.classes_)
    assert np.isfinite(bundle.predict_proba(texts)).all()


def test_sixteen_threads_get_what_one_gets(exported: Path) -> None:
    texts = TEXTS + random_texts(300)
    expected = load(exported).predict_proba(texts)
    shared = load(exported)  # that knows no word yet
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: shared.predict_proba(texts), range(64)))
    assert all(answer == pytest.approx(expected, abs=1e-6) for answer in answers)


def test_it_abstains_where_it_is_not_sure(bundle: Bundle) -> None:
    confidences = bundle.predict_proba(TEXTS).max(axis=1)
    threshold = float(np.median(confidences))
    answers = bundle.predict(TEXTS, min_confidence=threshold)
    sure = bundle.predict(TEXTS)
    assert answers == [
        label if confidence >= threshold else ""
        for label, confidence in zip(sure, confidences, strict=True)
    ]
    assert "" in answers
    assert set(answers) > {""}


def test_what_is_no_list_of_texts_is_refused(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="list of texts"):
        bundle.predict("i am so happy")
    with pytest.raises(DataError, match="float"):
        bundle.predict(["fine", float("nan")])  # type: ignore[list-item]


def test_words_it_has_met_do_not_fill_the_memory(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.runtime._MOST_PARTS", 10)
    small = load(exported)
    texts = [f"word{number} happy" for number in range(50)]
    first = small.predict_proba(texts)
    assert len(small._parts) == 10
    assert np.array_equal(small.predict_proba(texts), first)


def test_it_answers_without_torch_and_without_the_rest_of_the_project(
    exported_zip: Path, elsewhere: dict[str, str]
) -> None:
    code = (
        "import sys; from edge.runtime import load\n"
        f"print(load({str(exported_zip)!r}).predict(['so sad']))\n"
        "print({it.split('.')[0] for it in sys.modules} & "
        "{'torch', 'onnx', 'scipy', 'sklearn', 'transformers', 'lstm', 'compress'})\n"
        "print(*(it for it in sys.modules if it.split('.')[0] == 'featherweight'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=elsewhere, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    answer, heavy, own = done.stdout.splitlines()
    assert answer in ("['joy']", "['sadness']", "['anger']")
    assert (heavy, done.stderr) == ("set()", "")
    assert set(own.split()) == {"featherweight", "featherweight.errors"}
