"""What `predict` shows on a terminal."""

import json
import logging
from pathlib import Path

import pytest

from featherweight import load
from featherweight.prediction.bad_rows import Row
from featherweight.prediction.config import PredictConfig
from featherweight.prediction.predict import predict
from featherweight.prediction.terminal import print_answers
from featherweight.reports.terminal import controls_terminal


def test_without_a_run_the_pretrained_bundle_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    predict(PredictConfig(texts=["hi"], output_dir=tmp_path))
    assert caplog.messages == ["weights: the pretrained bundle (six emotions of tweets)"]


def test_given_weights_are_not_named(tiny_run: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    predict(PredictConfig(texts=["hi"], weights=tiny_run, device="cpu"))
    assert caplog.messages == []


def test_json_is_ascii_whatever_the_terminal_can_show(
    tiny_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["ünï 😂", "so\u2028happy", "\x1b[31m"]
    predict(PredictConfig(texts=texts, weights=tiny_run, device="cpu", json=True))
    out = capsys.readouterr().out
    assert out.isascii()
    assert [answer["text"] for answer in json.loads(out)] == texts


def test_the_table_shows_no_control_characters(
    tiny_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier = load(tiny_run, "cpu")
    classifier.labels = ("a\x1b[31m", "two\nlines", "\u202eevil")
    rows = [Row(text, {"text": text}) for text in ("\x1b[2J", "a\r\nb", "\u202etxt")]
    print_answers(classifier, [rows], PredictConfig(), width=5)
    shown = capsys.readouterr().out.splitlines()[2:5]
    assert [row[:5].strip() for row in shown] == ["�[2J", "a b", "�txt"]
    assert not any(map(controls_terminal, shown))
    assert len({row.rindex("0.") for row in shown}) == 1  # the columns are aligned
