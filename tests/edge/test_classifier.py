"""A bundle where a run can stand: load, predict, compare; and the verbs that make and check it."""

import json
from pathlib import Path

import numpy as np
import pytest

from edge.classifier import BundleClassifier
from edge.config import ExportConfig
from edge.export import export
from featherweight import load
from featherweight.cli import main
from featherweight.errors import WeightsError
from featherweight.timing.latency import Contender
from lstm.classifier import TextClassifier
from lstm.config import TrainConfig
from lstm.train import train


def facts_of(folder: Path) -> dict:
    return json.loads((folder / "bundle.json").read_text(encoding="utf-8"))


def make_zip(run: Path, path: Path) -> bytes:
    return export(ExportConfig(run, path)).read_bytes()


TEXTS = ["so happy 😂", "", "zzz", "i miss my dog, i feel so alone", "why, why, why???"]


@pytest.fixture(scope="module")
def in_fp32(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose graph is stored in fp32, without the rounding of int8."""
    path = tmp_path_factory.mktemp("fp32") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edge.export.packed", lambda graph: graph)
        return export(ExportConfig(tiny_run, path))


def test_in_fp32_it_answers_what_the_run_answers(in_fp32: Path, tiny_run: Path) -> None:
    bundle, origin = load(in_fp32), load(tiny_run, "cpu")
    assert isinstance(bundle, BundleClassifier)
    temperature = bundle.bundle.facts["temperature"]
    texts = TEXTS * 20
    expected = np.exp(origin.logits(texts) / temperature)
    expected /= expected.sum(axis=1, keepdims=True)
    assert bundle.predict_proba(texts) == pytest.approx(expected, abs=1e-3)
    assert bundle.predict(texts) == origin.predict(texts)


def test_in_int8_it_answers_nearly_what_the_run_answers(tiny_data: Path, tmp_path: Path) -> None:
    # Trained to its end: one that has hardly begun is undecided on every other text.
    config = TrainConfig(
        data=str(tiny_data), output_dir=tmp_path, name="decided", embedding_dim=8, hidden_dim=8,
        epochs=20, min_steps=1, patience=20, batch_size=8, learning_rate=0.03, device="cpu",
    )  # fmt: skip
    run, _ = train(config)
    path = export(ExportConfig(run.path, tmp_path / "bundle"))
    lines = (tiny_data / "train.csv").read_text(encoding="utf-8").splitlines()[1:]
    texts = [*lines, *(" ".join(line.split()[1:]) for line in lines), *TEXTS]
    same = np.array(load(path).predict(texts)) == np.array(load(run.path, "cpu").predict(texts))
    assert same.mean() >= 0.995


def test_it_is_a_classifier_like_its_origin(in_fp32: Path, tiny_run: Path) -> None:
    bundle, origin = load(in_fp32), load(tiny_run, "cpu")
    assert isinstance(origin, TextClassifier)
    assert (bundle.name, bundle.labels) == ("tiny (bundle)", origin.labels)
    assert (bundle.backend, bundle.device, bundle.dtype) == ("onnxruntime", "cpu", "fp32")
    assert bundle.num_parameters() == origin.num_parameters()
    assert bundle.size_bytes() == sum(it.stat().st_size for it in in_fp32.iterdir())
    assert bundle.num_tokens(bundle.encode(TEXTS)) == origin.num_tokens(origin.encode(TEXTS))
    bundle.predict(["happy " * 128, "happy " * 129])
    assert bundle.truncated_texts == 1


def test_a_zip_file_is_as_large_as_it_is(exported_zip: Path) -> None:
    assert load(exported_zip).size_bytes() == exported_zip.stat().st_size


def test_it_is_never_timed_on_a_gpu(exported: Path, exported_zip: Path) -> None:
    for path in (exported, exported_zip):
        contender = Contender("bundle", weights=path)
        assert contender.runs_on("cpu")
        assert not contender.runs_on("cuda")


def test_a_damaged_bundle_is_no_run(copied: Path, tmp_path: Path) -> None:
    (copied / "model.onnx").unlink()
    with pytest.raises(WeightsError, match=r"no model\.onnx"):
        load(copied)
    (tmp_path / "other.zip").write_bytes(b"no zip file")
    with pytest.raises(WeightsError, match=r"other\.zip"):
        load(tmp_path / "other.zip")


def test_verbs_take_it_as_they_take_a_run(
    exported_zip: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", "so happy", "--weights", str(exported_zip), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["predicted_emotion"] in ("joy", "sadness", "anger")
    arguments = ["test", "--weights", str(exported_zip), "--data", str(tiny_data), "--json"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "tiny (bundle)"


def test_export_and_verify_from_the_command_line(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "made" / "bundle"
    assert main(["export", "--weights", str(tiny_run), "--output_path", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert main(["verify", str(path)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{path}: ")
    assert "golden texts, largest difference" in out
    assert (out.count("\n"), err) == (1, "")
    (path / "labels.json").write_text('["joy"]')
    assert main(["verify", str(path)]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "labels.json was altered" in err
    assert main(["verify"]) == 2


def test_equal_exports_are_equal_files(tiny_run: Path, exported: Path, tmp_path: Path) -> None:
    again = export(ExportConfig(tiny_run, tmp_path / "bundle"))
    for path in exported.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes(), path.name
    assert facts_of(again)["graph"]["dtype"] == "fp32"
    assert len({make_zip(tiny_run, tmp_path / name) for name in ("a.zip", "b.zip")}) == 1


def test_an_answer_does_not_depend_on_the_texts_beside_it(exported: Path) -> None:
    bundle = load(exported)
    together = bundle.predict_proba(TEXTS * 10)[: len(TEXTS)]
    alone = np.concatenate([bundle.predict_proba([text]) for text in TEXTS])
    assert together == pytest.approx(alone, abs=1e-6)


def test_export_warns_where_int8_changes_many_labels(
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("edge.export.MIN_AGREEMENT", 1.1)
    export(ExportConfig(tiny_run, tmp_path / "bundle"))
    assert "int8 storage changes the label of" in caplog.text
