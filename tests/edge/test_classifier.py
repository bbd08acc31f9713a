"""A bundle as a classifier, and `export` and `verify` on the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

from edge.classifier import BundleClassifier
from edge.config import ExportConfig
from edge.export import export
from featherweight import load
from featherweight.classifier import softmax
from featherweight.errors import WeightsError
from featherweight.timing.latency import Contender
from lstm.classifier import TextClassifier
from lstm.config import TrainConfig
from lstm.train import train
from tests.helpers.command_line import Capture, call, error_line

TEXTS = ["so happy 😂", "", "zzz", "i miss my dog, i feel so alone", "why, why, why???"]


@pytest.fixture(scope="module")
def exported_fp32(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose graph is stored in fp32, without the rounding of int8."""
    path = tmp_path_factory.mktemp("fp32") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edge.export.packed", lambda graph: graph)
        return export(ExportConfig(tiny_run, path))


def test_in_fp32_its_probabilities_are_those_of_the_calibrated_run(
    exported_fp32: Path, tiny_run: Path
) -> None:
    bundle, run = load(exported_fp32), load(tiny_run, "cpu")
    assert isinstance(bundle, BundleClassifier)
    texts = TEXTS * 20
    expected = softmax(run.logits(texts) / bundle.bundle.metadata["temperature"])
    probabilities = bundle.predict_proba(texts)
    assert probabilities == pytest.approx(expected, abs=1e-3)
    labels = [bundle.labels[index] for index in probabilities.argmax(axis=1)]
    assert bundle.predict(texts) == labels
    alone = np.concatenate([bundle.predict_proba([text]) for text in TEXTS])
    assert probabilities[: len(TEXTS)] == pytest.approx(alone, abs=1e-5)


def test_in_int8_it_keeps_the_confident_labels_of_the_run(tiny_data: Path, tmp_path: Path) -> None:
    # Trained for long enough to be confident.
    config = TrainConfig(
        data=str(tiny_data), output_dir=tmp_path, name="confident", embedding_dim=8, hidden_dim=8,
        epochs=20, min_steps=1, patience=20, batch_size=8, learning_rate=0.03, device="cpu",
    )  # fmt: skip
    run, _ = train(config)
    bundle = load(export(ExportConfig(run.path, tmp_path / "bundle")))
    lines = (tiny_data / "train.csv").read_text(encoding="utf-8").splitlines()[1:]
    texts = [*lines, *(" ".join(line.split()[1:]) for line in lines), *TEXTS]
    expected = load(run.path, "cpu").predict_proba(texts)
    _, second, highest = np.sort(expected, axis=1).T
    confident = highest - second > 0.1
    assert confident.mean() > 0.8
    same = bundle.predict_proba(texts).argmax(axis=1) == expected.argmax(axis=1)
    assert same[confident].all()


def test_it_has_the_attributes_of_a_classifier(
    exported_fp32: Path, exported_zip: Path, tiny_run: Path
) -> None:
    bundle, run = load(exported_fp32), load(tiny_run, "cpu")
    assert isinstance(bundle, BundleClassifier)
    assert isinstance(run, TextClassifier)
    assert (bundle.name, bundle.labels) == ("tiny (bundle)", run.labels)
    assert (bundle.backend, bundle.device, bundle.dtype) == ("onnxruntime", "cpu", "fp32")
    assert bundle.num_parameters() == run.num_parameters()
    assert bundle.size_bytes() == sum(file.stat().st_size for file in exported_fp32.iterdir())
    assert load(exported_zip).size_bytes() == exported_zip.stat().st_size
    assert bundle.num_tokens(bundle.encode(TEXTS)) == run.num_tokens(run.encode(TEXTS))
    bundle.predict(["happy " * 128, "happy " * 129])
    assert bundle.truncated_texts == 1


def test_it_is_timed_on_the_cpu_only(exported: Path, exported_zip: Path) -> None:
    for path in (exported, exported_zip):
        contender = Contender("bundle", weights=path)
        assert contender.runs_on("cpu")
        assert not contender.runs_on("cuda")


def test_a_damaged_bundle_is_not_loaded_as_a_run(copied: Path, tmp_path: Path) -> None:
    (copied / "model.onnx").unlink()
    with pytest.raises(WeightsError, match=r"no model\.onnx"):
        load(copied)
    (tmp_path / "other.zip").write_bytes(b"not a zip file")
    with pytest.raises(WeightsError, match=r"other\.zip"):
        load(tmp_path / "other.zip")


def test_predict_and_test_accept_it(exported_zip: Path, tiny_data: Path, capsys: Capture) -> None:
    assert call("predict", "so happy", "--weights", exported_zip, "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["predicted_emotion"] in ("joy", "sadness", "anger")
    assert call("test", "--weights", exported_zip, "--data", tiny_data, "--json") == 0
    assert json.loads(capsys.readouterr().out)["model"] == "tiny (bundle)"


def test_export_and_verify_from_the_command_line(
    tiny_run: Path, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "new" / "bundle"
    assert call("export", "--weights", tiny_run, "--output_path", path) == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert call("verify", path) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{path}: ")
    assert "golden texts, largest difference" in out
    assert (out.count("\n"), err) == (1, "")
    (path / "labels.json").write_text('["joy"]')
    assert call("verify", path) == 1
    assert "labels.json was altered" in error_line(capsys)
    assert call("verify") == 2
