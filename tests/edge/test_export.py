"""What is exported, what it says of itself, and what becomes of it when it is broken."""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from compress.config import CompressConfig
from compress.origin import Origin
from compress.variant import compress_run
from edge.config import ExportConfig
from edge.export import export
from edge.runtime import FACTS, GOLDEN, HASHED, LABELS, MODEL, TOKENIZER, facts_hash, load
from featherweight import load as load_run
from featherweight.errors import UsageError, WeightsError
from featherweight.run import CONFIG, Run

FILES = {FACTS, *HASHED}


def facts_of(folder: Path) -> dict:
    return json.loads((folder / FACTS).read_text(encoding="utf-8"))


def test_a_folder_holds_five_files_and_their_hashes(exported: Path) -> None:
    assert {it.name for it in exported.iterdir()} == FILES
    for name, sha256 in facts_of(exported)["files"].items():
        assert hashlib.sha256((exported / name).read_bytes()).hexdigest() == sha256


def test_a_zip_file_holds_the_same_files(exported_zip: Path) -> None:
    with zipfile.ZipFile(exported_zip) as archive:
        assert set(archive.namelist()) == FILES
    assert {it.name for it in exported_zip.parent.iterdir()} <= {"bundle", "bundle.zip"}


def test_it_says_what_it_is(exported: Path, tiny_run: Path, tiny_data: Path) -> None:
    facts = facts_of(exported)
    assert (facts["format"], facts["name"]) == ("featherweight-bundle/1", "tiny")
    assert facts["training"]["flags"]["hidden_dim"] == 8
    assert facts["data"]["splits"]["validation"]["n"] == 12
    low, high = facts["validation"]["accuracy"]["interval"]
    assert 0 <= low <= facts["validation"]["accuracy"]["value"] <= high <= 1
    assert 0.05 <= facts["temperature"] <= 20
    assert facts["graph"].keys() == {"storage", "dtype", "same_labels"}
    assert 0.5 < facts["graph"]["same_labels"] <= 1
    # Nobody else's business.
    content = (exported / FACTS).read_text(encoding="utf-8")
    assert str(tiny_data.parent) not in content
    assert str(tiny_run.parent) not in content


def test_terms_of_the_data_go_along(tiny_run: Path, tmp_path: Path) -> None:
    note = "for research only"
    folder = export(ExportConfig(tiny_run, tmp_path / "bundle", license_note=note))
    assert facts_of(folder)["license_note"] == note


def test_confidence_is_calibrated_on_validation(exported: Path, tiny_run: Path) -> None:
    temperature = facts_of(exported)["temperature"]
    scaled = load_run(tiny_run, "cpu").logits(["so happy", "i am sad"]) / temperature
    assert load(exported).logits(["so happy", "i am sad"]) == pytest.approx(scaled, abs=0.05)


def test_golden_texts_are_answered_as_they_must_be(exported: Path, exported_zip: Path) -> None:
    lines = (exported / GOLDEN).read_text(encoding="utf-8").splitlines()
    assert any(json.loads(line)["text"] == "" for line in lines)
    for path in (exported, exported_zip):
        texts, largest = load(path).verify()
        assert texts == len(lines) > 20
        assert largest < 1e-5


def test_no_text_of_the_data_leaves_with_it(exported: Path, tiny_run: Path) -> None:
    golden = {json.loads(line)["text"] for line in (exported / GOLDEN).open(encoding="utf-8")}
    dataset = Origin.load(Run(tiny_run), "cpu").dataset
    assert not golden & {text for split in dataset.splits for text in split.texts}
    vocabulary = json.loads((exported / TOKENIZER).read_text(encoding="utf-8"))["model"]["vocab"]
    assert sum(set(text.split()) <= vocabulary.keys() for text in golden if text) >= 44


@pytest.mark.parametrize("method", ["int8", "int4", "prune"])
def test_a_variant_leaves_with_the_weights_it_computes_with(
    tiny_run: Path, tmp_path: Path, method: str
) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    config = CompressConfig(weights=run, method=method, retraining_epochs=1)  # type: ignore[arg-type]
    variant, _ = compress_run(config)
    folder = export(ExportConfig(variant.path, tmp_path / "bundle"))
    facts = facts_of(folder)
    assert facts["training"]["compression"]["method"] == method
    own = load_run(variant.path, "cpu").logits(["so happy", "", "why me"])
    ours = load(folder).logits(["so happy", "", "why me"]) * facts["temperature"]
    assert ours == pytest.approx(own, abs=0.02)


def test_a_place_that_is_taken_stays_as_it_is(tiny_run: Path, copied: Path, tmp_path: Path) -> None:
    before = (copied / FACTS).read_bytes()
    with pytest.raises(UsageError, match="--overwrite"):
        export(ExportConfig(tiny_run, copied))
    assert (copied / FACTS).read_bytes() == before
    other = tmp_path / "letters.zip"
    other.write_text("dear ann")
    with pytest.raises(UsageError, match="no bundle"):
        export(ExportConfig(tiny_run, other, overwrite=True))
    assert other.read_text() == "dear ann"
    export(ExportConfig(tiny_run, copied, overwrite=True))
    load(copied).verify()


def test_an_export_that_fails_leaves_nothing(
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


def test_what_is_no_run_of_an_lstm_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run directory"):
        export(ExportConfig(tmp_path, tmp_path / "bundle"))
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    onnx, _ = compress_run(CompressConfig(weights=run, method="onnx"))
    assert (onnx.path / CONFIG).is_file()
    with pytest.raises(UsageError, match="no LSTM in PyTorch"):
        export(ExportConfig(onnx.path, tmp_path / "bundle"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("breaking", [flip, cut, Path.unlink])
def test_a_broken_folder_is_refused(
    copied: Path, name: str, breaking: Callable[[Path], None]
) -> None:
    breaking(copied / name)
    with pytest.raises(WeightsError) as caught:
        load(copied)
    assert name in str(caught.value)
    assert str(copied) in str(caught.value)


def test_a_changed_fact_is_refused(copied: Path) -> None:
    facts = facts_of(copied)
    (copied / FACTS).write_text(json.dumps(facts | {"temperature": 9}))
    with pytest.raises(WeightsError, match=r"bundle\.json was altered"):
        load(copied)


def rewritten(folder: Path, name: str, content: bytes) -> None:
    """Changes a file and every hash of it, as somebody with a program would."""
    (folder / name).write_bytes(content)
    facts = facts_of(folder)
    facts["files"][name] = hashlib.sha256(content).hexdigest()
    (folder / FACTS).write_text(json.dumps(facts | {"sha256": facts_hash(facts)}))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (MODEL, b"no model", "model.onnx is not a model"),
        (TOKENIZER, b"{}", "does not fit this version"),
        (LABELS, b'["joy"]', "1 labels"),
        (LABELS, b"3", "does not fit this version"),
        (GOLDEN, b"{", "does not fit this version"),
    ],
)
def test_what_fits_its_hash_and_nothing_else_is_refused(
    copied: Path, name: str, content: bytes, says: str
) -> None:
    rewritten(copied, name, content)
    with pytest.raises(WeightsError, match=says) as caught:
        load(copied)
    assert "\n" not in str(caught.value)


def test_other_answers_than_golden_ones_do_not_verify(copied: Path) -> None:
    lines = (copied / GOLDEN).read_text(encoding="utf-8").splitlines()
    row = json.loads(lines[2])
    lines[2] = json.dumps(row | {"probabilities": np.roll(row["probabilities"], 1).tolist()})
    rewritten(copied, GOLDEN, "\n".join(lines).encode())
    with pytest.raises(WeightsError, match=r"line 3 of golden\.jsonl"):
        load(copied).verify()
    rewritten(copied, GOLDEN, b"")
    with pytest.raises(WeightsError, match="has no texts"):
        load(copied).verify()


def test_another_version_is_named_as_such(copied: Path) -> None:
    facts = facts_of(copied)
    for name, says in (("featherweight-bundle/2", "newer version"), ("cake/1", "another program")):
        (copied / FACTS).write_text(json.dumps(facts | {"format": name}))
        with pytest.raises(WeightsError, match=says):
            load(copied)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_zip_file_is_refused(exported_zip: Path, tmp_path: Path, share: float) -> None:
    content = exported_zip.read_bytes()
    path = tmp_path / "broken.zip"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsError, match=r"broken\.zip"):
        load(path)


@pytest.mark.parametrize("name", sorted(FILES))
def test_an_altered_zip_file_is_refused(exported_zip: Path, tmp_path: Path, name: str) -> None:
    content = bytearray(exported_zip.read_bytes())
    with zipfile.ZipFile(exported_zip) as archive:
        entry = archive.getinfo(name)
    # Behind the header of the entry, some of whose fields nobody reads.
    content[entry.header_offset + 30 + len(name) + entry.compress_size // 2] ^= 0x55
    path = tmp_path / "broken.zip"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"broken\.zip"):
        load(path)


@pytest.mark.parametrize(
    "name", ["../model.onnx", "/etc/passwd", "bundle/model.onnx", "..\\a", "c:\\a", MODEL]
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_strange_names_in_a_zip_file_are_refused(
    exported_zip: Path, tmp_path: Path, name: str
) -> None:
    path = Path(shutil.copy(exported_zip, tmp_path / "strange.zip"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"")
    with pytest.raises(WeightsError, match=r"strange\.zip holds"):
        load(path)
    assert [it.name for it in tmp_path.iterdir()] == ["strange.zip"]


def test_nothing_at_all_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path / "none.zip", tmp_path):
        with pytest.raises(WeightsError):
            load(path)
