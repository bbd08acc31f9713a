"""Bundles whose files are changed together with their hashes, as their maker could."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from edge.bundle_files import METADATA, json_sha256
from featherweight import load
from featherweight.errors import WeightsError


def metadata_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / METADATA).read_text(encoding="utf-8"))


def rewrite(folder: Path, name: str, content: bytes) -> None:
    """Changes a file together with its hashes, so that they match."""
    (folder / name).write_bytes(content)
    metadata = metadata_of(folder)
    metadata["files"][name] = hashlib.sha256(content).hexdigest()
    rewrite_metadata(folder, metadata)


def rewrite_metadata(folder: Path, metadata: dict[str, Any]) -> None:
    sha256 = json_sha256(json.loads(json.dumps(metadata)))
    (folder / METADATA).write_text(json.dumps(metadata | {"sha256": sha256}))


def refusal(path: Path) -> str:
    """Returns the message with which a bundle is refused, without the path before it."""
    with pytest.raises(WeightsError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message.removeprefix(str(path))
