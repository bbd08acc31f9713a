"""Reads the files of a bundle, within limits, and checks that they arrived whole.

The hashes show damage and incomplete copies. They do not show who made a bundle: whoever changes a
file can also change the hashes. `edge.runtime` therefore checks the content as well.
"""

import hashlib
import json
import stat
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from featherweight.errors import WeightsError

FORMAT = "featherweight-bundle/1"
METADATA = "bundle.json"
MODEL, TOKENIZER, LABELS, GOLDEN = "model.onnx", "tokenizer.json", "labels.json", "golden.jsonl"
HASHED = (MODEL, TOKENIZER, LABELS, GOLDEN)
MAX_BYTES: Mapping[str, int] = MappingProxyType(
    {
        METADATA: 1_000_000,
        LABELS: 1_000_000,
        GOLDEN: 8_000_000,
        TOKENIZER: 30_000_000,
        MODEL: 160_000_000,
    }
)
"""Maximum size of each file, uncompressed; 200 MB together."""

# The last records of a zip file: the optional locator of the zip64 format, which a bundle is too
# small for, and the end record, whose fields state the size of the table of contents.
_LOCATOR_BYTES, _LOCATOR = 20, b"PK\x06\x07"
_END_BYTES, _END, _CONTENTS_SIZE = 22, b"PK\x05\x06", slice(12, 16)
_MAX_CONTENTS_BYTES = 10_000
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others need far more memory
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError
)  # fmt: skip


def read(path: Path) -> dict[str, bytes]:
    """Returns the files of a bundle by name, after checking their hashes.

    Raises:
        WeightsError: A file is missing, damaged, too large or not from a bundle; the message names
            it.
    """
    files = _read_folder(path) if path.is_dir() else _read_zip(path)
    for name in MAX_BYTES:
        if name not in files:
            raise WeightsError(f"{path} has no {name}: it is not a bundle, or is incomplete")
    damaged = "was altered or truncated: copy the bundle again"
    try:
        metadata = json.loads(files[METADATA])
        if not str(metadata["format"]).startswith(FORMAT.rpartition("/")[0]):
            raise WeightsError(f"{path / METADATA} was not written by featherweight")
        if metadata["format"] != FORMAT:
            raise WeightsError(f"{path / METADATA} is of a newer version: update featherweight")
        if metadata["sha256"] != json_sha256(metadata):
            raise WeightsError(f"{path / METADATA} {damaged}")
        expected = {name: metadata["files"][name] for name in HASHED}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise WeightsError(f"{path / METADATA} {damaged}") from None
    for name, sha256 in file_hashes(files).items():
        if sha256 != expected[name]:
            raise WeightsError(f"{path / name} {damaged}")
    return files


def check_size(path: Path, name: str, size: int) -> None:
    """Raises a WeightsError if a file of a bundle is too large.

    Args:
        path: The bundle.
        name: The file.
        size: In bytes, uncompressed.
    """
    if size > MAX_BYTES[name]:
        raise WeightsError(
            f"{path / name} has {size:,} bytes: in a bundle it has at most {MAX_BYTES[name]:,}"
        )


def file_hashes(files: Mapping[str, bytes]) -> dict[str, str]:
    """Returns the SHA-256 of each file but the metadata."""
    return {name: hashlib.sha256(files[name]).hexdigest() for name in HASHED}


def json_sha256(value: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a JSON object without its own "sha256" key."""
    hashed = {name: item for name, item in value.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()


def _read_folder(path: Path) -> dict[str, bytes]:
    files = {}
    for name in MAX_BYTES:
        file = path / name
        if file.is_file():
            check_size(path, name, file.stat().st_size)
            files[name] = file.read_bytes()
    return files


def _read_zip(path: Path) -> dict[str, bytes]:
    if not path.is_file():
        raise WeightsError(f"no bundle at {path}: give a folder or a zip file written by export")
    try:
        _check_contents_size(path)
        with zipfile.ZipFile(path) as archive:
            _check_entries(path, archive.infolist())
            return {name: archive.read(name) for name in archive.namelist()}
    except _DAMAGED:
        raise WeightsError(f"{path} is damaged or truncated: copy it again") from None


def _check_contents_size(path: Path) -> None:
    """Raises an error unless a zip file ends with a short table of contents, before reading it."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LOCATOR_BYTES - _END_BYTES))
        records = file.read()
    locator, end = records[:-_END_BYTES], records[-_END_BYTES:]
    if not end.startswith(_END):
        raise zipfile.BadZipFile("no end record")
    contents_bytes = int.from_bytes(end[_CONTENTS_SIZE], "little")
    if locator.startswith(_LOCATOR) or contents_bytes > _MAX_CONTENTS_BYTES:
        raise WeightsError(f"{path} contains too many files: a bundle has five plain files")


def _check_entries(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Raises a WeightsError unless the entries are the files of a bundle, once each, and small."""
    seen: set[str] = set()
    for entry in entries:
        name, mode = entry.filename, entry.external_attr >> 16  # the mode on Unix, else 0
        if name not in MAX_BYTES or name in seen or stat.S_ISLNK(mode):
            raise WeightsError(f"{path} contains {name!r:.60}: a bundle has five plain files")
        if entry.compress_type not in _COMPRESSIONS:
            raise WeightsError(f"{path / name} is compressed in a way that export does not use")
        check_size(path, name, entry.file_size)
        seen.add(name)
