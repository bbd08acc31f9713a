"""What export writes, and that damaged, foreign or modified bundles are refused."""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from compress.config import CompressConfig
from compress.onnx.conversion import export as export_onnx
from compress.origin import Origin
from compress.variant import compress_run
from edge.bundle_files import GOLDEN, HASHED, LABELS, METADATA, MODEL, TOKENIZER
from edge.config import ExportConfig, VerifyConfig
from edge.export import export, fit_temperature
from edge.runtime import load
from edge.verify import verify
from featherweight import load as load_run
from featherweight.classifier import softmax
from featherweight.errors import FeatherweightError, UsageError, WeightsError
from featherweight.run import CONFIG, Run
from tests.helpers.bundles import metadata_of, rewrite

FILES = {METADATA, *HASHED}


def test_a_bundle_has_five_files_and_their_hashes(exported: Path, exported_zip: Path) -> None:
    assert {file.name for file in exported.iterdir()} == FILES
    for name, sha256 in metadata_of(exported)["files"].items():
        assert hashlib.sha256((exported / name).read_bytes()).hexdigest() == sha256
    with zipfile.ZipFile(exported_zip) as archive:
        assert set(archive.namelist()) == FILES
    assert {file.name for file in exported_zip.parent.iterdir()} == {"bundle", "bundle.zip"}


def test_the_metadata_names_training_data_and_scores_but_no_paths(
    exported: Path, tiny_run: Path, tiny_data: Path
) -> None:
    metadata = metadata_of(exported)
    assert (metadata["format"], metadata["name"]) == ("featherweight-bundle/1", "tiny")
    assert metadata["training"]["flags"]["hidden_dim"] == 8
    assert metadata["data"]["splits"]["validation"]["n"] == 12
    low, high = metadata["validation"]["accuracy"]["interval"]
    assert 0 <= low <= metadata["validation"]["accuracy"]["value"] <= high <= 1
    assert metadata["graph"].keys() == {"storage", "dtype", "same_labels"}
    assert metadata["graph"]["dtype"] == "fp32"
    assert 0.5 < metadata["graph"]["same_labels"] <= 1
    assert metadata["normaliser"].keys() == {"in", "sha256"}
    content = (exported / METADATA).read_text(encoding="utf-8")
    assert str(tiny_data.parent) not in content
    assert str(tiny_run.parent) not in content


def test_equal_exports_are_equal_files(
    tiny_run: Path, exported: Path, exported_zip: Path, tmp_path: Path
) -> None:
    folder = export(ExportConfig(tiny_run, tmp_path / "bundle"))
    for path in exported.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes(), path.name
    again = export(ExportConfig(tiny_run, tmp_path / "again.zip"))
    assert again.read_bytes() == exported_zip.read_bytes()


def test_the_license_is_stored_and_changed_labels_are_warned_of(
    tiny_run: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr("edge.export.MIN_AGREEMENT", 1.1)
    note = "for research only"
    folder = export(ExportConfig(tiny_run, tmp_path / "bundle", license_note=note))
    assert metadata_of(folder)["license_note"] == note
    assert "int8 storage changes the label of" in caplog.text


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_labels_were_drawn_with_is_found(temperature: float) -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 3, (20_000, 4))
    cumulated = softmax(logits / temperature).cumsum(axis=1)
    targets = (generator.random((len(logits), 1)) > cumulated).sum(axis=1)
    assert fit_temperature(logits, targets) == pytest.approx(temperature, rel=0.05)


def test_the_temperature_minimizes_the_loss_within_bounds() -> None:
    # Calculated by hand: right three times in four with a margin of 2, so 2 / T = log 3.
    logits = np.array([[2.0, 0.0]] * 4)
    assert fit_temperature(logits, np.array([0, 0, 0, 1])) == pytest.approx(2 / np.log(3), abs=1e-3)
    always_right = fit_temperature(np.array([[9.0, 0.0], [0.0, 9.0]]), np.array([0, 1]))
    assert 0.05 <= always_right < 0.5


def test_logits_are_divided_by_the_temperature(exported: Path, tiny_run: Path) -> None:
    temperature = metadata_of(exported)["temperature"]
    assert 0.05 <= temperature <= 20
    texts = ["so happy", "i am sad"]
    scaled = load_run(tiny_run, "cpu").logits(texts) / temperature
    assert load(exported).logits(texts) == pytest.approx(scaled, abs=0.05)


def test_golden_texts_verify_and_contain_no_text_of_the_data(
    exported: Path, exported_zip: Path, tiny_run: Path
) -> None:
    golden = [json.loads(line)["text"] for line in (exported / GOLDEN).open(encoding="utf-8")]
    for path in (exported, exported_zip):
        num_texts, max_difference = load(path).verify()
        assert num_texts == len(golden) > 20
        assert max_difference < 1e-5
    dataset = Origin.load(Run(tiny_run), "cpu").dataset
    assert not {text for split in dataset.splits for text in split.texts}.intersection(golden)
    vocabulary = json.loads((exported / TOKENIZER).read_text(encoding="utf-8"))["model"]["vocab"]
    assert "" in golden
    assert sum(set(text.split()) <= vocabulary.keys() for text in golden if text) >= 44


@pytest.mark.parametrize("method", ["int8", "int4", "prune"])
def test_a_variant_is_exported_with_its_own_weights(
    tiny_run: Path, tmp_path: Path, method: str
) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    config = CompressConfig(weights=run, method=method, retraining_epochs=1)  # type: ignore[arg-type]
    variant, _ = compress_run(config)
    folder = export(ExportConfig(variant.path, tmp_path / "bundle"))
    metadata = metadata_of(folder)
    assert metadata["training"]["compression"]["method"] == method
    bundle = load_run(folder)
    assert bundle.name == f"tiny ({method}, bundle)"
    texts = ["so happy", "", "why me"]
    expected = load_run(variant.path, "cpu").logits(texts)
    assert bundle.logits(texts) * metadata["temperature"] == pytest.approx(expected, abs=0.05)


def test_existing_output_is_replaced_only_if_it_is_a_bundle_and_overwrite_is_given(
    tiny_run: Path, copied: Path, tmp_path: Path
) -> None:
    before = (copied / METADATA).read_bytes()
    with pytest.raises(UsageError, match="--overwrite"):
        export(ExportConfig(tiny_run, copied))
    assert (copied / METADATA).read_bytes() == before
    other = tmp_path / "letters.zip"
    other.write_text("dear ann")
    with pytest.raises(UsageError, match="not a bundle"):
        export(ExportConfig(tiny_run, other, overwrite=True))
    assert other.read_text() == "dear ann"
    (copied / METADATA).write_bytes(before)
    export(ExportConfig(tiny_run, copied, overwrite=True))
    load(copied).verify()


def test_a_failed_export_leaves_no_files(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edge.export.Run.write_bytes", full)
    monkeypatch.setattr("zipfile.ZipFile.writestr", full)
    for name in ("bundle", "bundle.zip"):
        with pytest.raises(OSError, match="No space"):
            export(ExportConfig(tiny_run, tmp_path / name))
    assert list(tmp_path.iterdir()) == []


def test_only_lstm_runs_are_exported(tiny_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run directory"):
        export(ExportConfig(tmp_path, tmp_path / "bundle"))
    run = tmp_path / "run"
    run.mkdir()
    for name in (CONFIG, "data.json"):
        shutil.copy(tiny_run / name, run / name)
    export_onnx(load_run(tiny_run, "cpu"), None, "onnx", run)
    with pytest.raises(UsageError, match="not an LSTM in PyTorch"):
        export(ExportConfig(run, tmp_path / "bundle"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
def test_a_damaged_folder_is_refused(
    copied: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(copied / name)
    with pytest.raises(WeightsError) as caught:
        load(copied)
    assert name in str(caught.value)
    assert str(copied) in str(caught.value)


def test_changed_metadata_is_refused(copied: Path) -> None:
    changes = [
        ({"temperature": 9}, r"bundle\.json was altered"),
        ({"format": "featherweight-bundle/2"}, "newer version"),
        ({"format": "cake/1"}, "not written by featherweight"),
    ]
    metadata = metadata_of(copied)
    for change, message in changes:
        (copied / METADATA).write_text(json.dumps(metadata | change))
        with pytest.raises(WeightsError, match=message):
            load(copied)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (MODEL, b"not a model", "model.onnx does not fit"),
        (TOKENIZER, b"{}", "does not fit this version"),
        (LABELS, b'["joy"]', "1 labels"),
        (LABELS, b"3", "does not fit this version"),
        (GOLDEN, b"{", "does not fit this version"),
    ],
)
def test_invalid_content_with_a_matching_hash_is_refused(
    copied: Path, name: str, content: bytes, message: str
) -> None:
    rewrite(copied, name, content)
    with pytest.raises(WeightsError, match=message) as caught:
        load(copied)
    assert str(caught.value).startswith(f"{copied}: ")
    assert "\n" not in str(caught.value)


def test_other_probabilities_than_the_golden_ones_do_not_verify(copied: Path) -> None:
    lines = (copied / GOLDEN).read_text(encoding="utf-8").splitlines()
    row = json.loads(lines[2])
    lines[2] = json.dumps(row | {"probabilities": np.roll(row["probabilities"], 1).tolist()})
    rewrite(copied, GOLDEN, "\n".join(lines).encode())
    with pytest.raises(FeatherweightError, match=r"line 3 of golden\.jsonl") as caught:
        verify(VerifyConfig([copied]))
    assert str(caught.value).count(str(copied)) == 1
    assert caught.value.exit_code == 1
    rewrite(copied, GOLDEN, b"")
    with pytest.raises(WeightsError, match="has no texts"):
        load(copied).verify()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_zip_file_is_refused(exported_zip: Path, tmp_path: Path, share: float) -> None:
    content = exported_zip.read_bytes()
    path = tmp_path / "truncated.zip"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsError, match=r"truncated\.zip"):
        load(path)


@pytest.mark.parametrize("name", sorted(FILES))
def test_an_altered_zip_file_is_refused(exported_zip: Path, tmp_path: Path, name: str) -> None:
    content = bytearray(exported_zip.read_bytes())
    with zipfile.ZipFile(exported_zip) as archive:
        entry = archive.getinfo(name)
    # After the header of the entry, some fields of which are not read.
    content[entry.header_offset + 30 + len(name) + entry.compress_size // 2] ^= 0x55
    path = tmp_path / "altered.zip"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"altered\.zip"):
        load(path)


@pytest.mark.parametrize(
    "name", ["../model.onnx", "/etc/passwd", "bundle/model.onnx", "..\\a", "c:\\a", MODEL]
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_paths_and_duplicate_names_in_a_zip_file_are_refused(
    exported_zip: Path, tmp_path: Path, name: str
) -> None:
    path = Path(shutil.copy(exported_zip, tmp_path / "other.zip"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"")
    with pytest.raises(WeightsError, match=r"other\.zip contains"):
        load(path)
    assert [file.name for file in tmp_path.iterdir()] == ["other.zip"]


def test_a_missing_bundle_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path / "none.zip", tmp_path):
        with pytest.raises(WeightsError):
            load(path)
