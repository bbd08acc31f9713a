"""Limits of what is read: sizes, number and names of files, links, and zip files that lie."""

import zipfile
from pathlib import Path

import pytest

from edge.bundle_files import LABELS, MAX_BYTES, MODEL, TOKENIZER, read
from tests.helpers.bundles import refusal


def test_files_above_their_maximum_size_are_refused(
    exported: Path, exported_zip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in read(exported).items():
        with monkeypatch.context() as patch:
            patch.setattr("edge.bundle_files.MAX_BYTES", {**MAX_BYTES, name: len(content) - 1})
            for path in (exported, exported_zip):
                assert f"/{name} has {len(content):,} bytes" in refusal(path)


def test_a_zip_file_that_unpacks_to_much_more_is_refused(
    exported_zip: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(exported_zip) as old, zipfile.ZipFile(path, "w") as new:
        for name in MAX_BYTES:
            if name != TOKENIZER:
                new.writestr(name, old.read(name))
        with new.open(zipfile.ZipInfo(TOKENIZER), "w") as entry:
            for _ in range(MAX_BYTES[TOKENIZER] // 10**6 + 1):
                entry.write(bytes(10**6))
    assert "at most 30,000,000" in refusal(path)


def test_sizes_in_a_zip_file_that_are_not_true_are_refused(
    exported_zip: Path, tmp_path: Path
) -> None:
    content = exported_zip.read_bytes()
    with zipfile.ZipFile(exported_zip) as archive:
        size = archive.getinfo(MODEL).file_size
    path = tmp_path / "lying.zip"
    for lie in (size - 1, 5):
        path.write_bytes(content.replace(size.to_bytes(4, "little"), lie.to_bytes(4, "little")))
        refusal(path)


@pytest.mark.parametrize("count", [6, 60_000])
def test_a_zip_file_with_more_files_than_a_bundle_is_refused(tmp_path: Path, count: int) -> None:
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            archive.writestr(str(number), b"")
    assert "a bundle has five plain files" in refusal(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_methods_are_refused(
    exported_zip: Path, tmp_path: Path, compression: int
) -> None:
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(exported_zip) as old, zipfile.ZipFile(path, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert "compressed in a way" in refusal(path)


def test_a_link_in_a_zip_file_is_refused(exported_zip: Path, tmp_path: Path) -> None:
    path = tmp_path / "linked.zip"
    with zipfile.ZipFile(exported_zip) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o120777 if name == LABELS else 0o100644) << 16
            new.writestr(entry, "/etc/passwd" if name == LABELS else old.read(name))
    assert f"contains '{LABELS}'" in refusal(path)
