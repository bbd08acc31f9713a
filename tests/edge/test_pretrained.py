"""The bundle that ships: small, undamaged, the one on record, and the default without a run."""

import hashlib
import json
from pathlib import Path

import pytest

from edge.bundle_files import read
from edge.pretrained import PATH
from edge.runtime import load as load_bundle
from featherweight import load, run_inference
from featherweight.cli import main
from featherweight.loading import resolve_weights

ROOT = Path(__file__).parents[2]
LABELS = ("sadness", "joy", "love", "anger", "fear", "surprise")


def test_its_folder_is_smaller_than_300_kb() -> None:
    files = [path for path in PATH.parent.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 300_000


def test_it_is_the_one_with_the_recorded_results() -> None:
    record = json.loads((ROOT / "results" / "pretrained.json").read_text(encoding="utf-8"))
    assert record["shipped"]["sha256"] == hashlib.sha256(PATH.read_bytes()).hexdigest()
    best = max(record["rows"], key=lambda row: row["validation"]["macro_f1"])
    assert all(record["shipped"][key] == best[key] for key in ("recipe", "seed"))
    metadata = json.loads(read(PATH)["bundle.json"])
    assert metadata["data"]["splits"] == record["recipes"][best["recipe"]]["data"]["splits"]
    assert metadata["validation"]["macro_f1"]["value"] == best["validation"]["macro_f1"]


def test_it_gives_the_exported_probabilities_and_names_its_license_and_training() -> None:
    bundle = load_bundle(PATH)
    num_texts, max_difference = bundle.verify()
    assert num_texts > 20
    assert max_difference < 1e-3
    assert "educational and research purposes only" in bundle.metadata["license_note"]
    compression = bundle.metadata["training"]["compression"]
    assert compression["method"] == "distill"
    assert len(compression["flags"]["teachers"]) > 3
    content = json.dumps(bundle.metadata)
    assert "/home" not in content
    assert "/root" not in content


def test_its_name_is_accepted_wherever_weights_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_weights("pretrained") == resolve_weights(Path("pretrained")) == PATH
    classifier = load("pretrained")
    assert (classifier.name, classifier.labels) == ("emotion-1 (distill, bundle)", LABELS)
    assert main(["verify", "pretrained"]) == 0
    assert "golden texts" in capsys.readouterr().out
    (tmp_path / "tweets.csv").write_text("text\ni feel so happy\ni feel so sad and lonely\n")
    assert run_inference("pretrained", "tweets.csv") == [1, 0]
    assert main(["test", "--weights", "pretrained", "--data", "bundled", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 358


def test_it_is_the_default_unless_there_is_a_run(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def predicted(text: str) -> str:
        assert main(["predict", "--json", text]) == 0
        (prediction,) = json.loads(capsys.readouterr().out)
        return str(prediction["predicted_emotion"])

    monkeypatch.chdir(tmp_path)
    assert predicted("i feel so happy today") == "joy"
    assert predicted("i feel afraid") == "fear"
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "mine").symlink_to(tiny_run)
    assert predicted("i feel afraid") == load(tiny_run, "cpu").predict(["i feel afraid"])[0]
