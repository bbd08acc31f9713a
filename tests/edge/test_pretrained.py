"""The bundle that ships: small, whole, the one of the record, and what answers where nothing else
does."""

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from edge.pretrained import PATH
from edge.runtime import load as load_bundle
from edge.runtime import read
from featherweight import load, run_inference
from featherweight.cli import main
from featherweight.loading import resolve_weights

ROOT = Path(__file__).parents[2]
LABELS = ("sadness", "joy", "love", "anger", "fear", "surprise")


def test_the_folder_that_ships_keeps_below_300_kb() -> None:
    files = [path for path in PATH.parent.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 300_000


def test_it_answers_as_when_it_was_exported() -> None:
    texts, largest = load_bundle(PATH).verify()
    assert texts > 20
    assert largest < 1e-3


def test_it_is_the_one_whose_figures_are_on_record() -> None:
    record = json.loads((ROOT / "results" / "pretrained.json").read_text(encoding="utf-8"))
    assert record["shipped"]["sha256"] == hashlib.sha256(PATH.read_bytes()).hexdigest()
    best = max(record["rows"], key=lambda row: row["validation"]["macro_f1"])
    assert all(record["shipped"][it] == best[it] for it in ("recipe", "seed"))
    facts = json.loads(read(PATH)["bundle.json"])
    assert facts["data"]["splits"] == record["recipes"][best["recipe"]]["data"]["splits"]
    assert facts["validation"]["macro_f1"]["value"] == best["validation"]["macro_f1"]


def test_it_says_on_what_terms_and_how_it_was_made() -> None:
    facts = load_bundle(PATH).facts
    assert "educational and research purposes only" in facts["license_note"]
    training = facts["training"]
    assert training["compression"]["method"] == "distill"
    assert len(training["compression"]["flags"]["teachers"]) > 3
    with zipfile.ZipFile(PATH) as archive:
        content = archive.read("bundle.json").decode()
    assert "/home" not in content
    assert "/root" not in content


def test_its_name_stands_for_it_wherever_weights_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_weights("pretrained") == resolve_weights(Path("pretrained")) == PATH
    assert load("pretrained").labels == LABELS
    assert main(["verify", "pretrained"]) == 0
    assert "golden texts" in capsys.readouterr().out
    (tmp_path / "tweets.csv").write_text("text\ni feel so happy\ni feel so sad and lonely\n")
    assert run_inference("pretrained", "tweets.csv") == [1, 0]
    assert main(["test", "--weights", "pretrained", "--data", "bundled", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 358


def test_where_there_is_no_run_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["predict", "--json", "i feel so happy today"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["predicted_emotion"] == "joy"


def test_a_run_answers_before_it(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "mine").symlink_to(tiny_run)
    assert main(["predict", "--json", "i feel so happy today"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert (
        answer["predicted_emotion"] == load(tiny_run, "cpu").predict(["i feel so happy today"])[0]
    )
