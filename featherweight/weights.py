"""Weight files: formats, metadata and hashes."""

import hashlib
import json
from pathlib import Path

from featherweight.errors import WeightsError

LSTM_FORMAT = "featherweight-lstm/2"
FEATURES_FORMAT = "featherweight-features/1"
BUNDLE_FACTS = "bundle.json"
_MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors library
_LENGTH_BYTES = 8  # at the start of the file: the length of the header


def is_bundle(path: Path) -> bool:
    """Returns whether weights were written by `export`."""
    return (path / BUNDLE_FACTS).is_file() or (path.suffix == ".zip" and path.is_file())


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's content, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def read_metadata(path: Path) -> dict[str, str]:
    """Returns the metadata in the header of a safetensors file, without reading any tensor.

    Source: https://github.com/huggingface/safetensors#format

    Raises:
        WeightsError: The file is not a safetensors file.
    """
    invalid = WeightsError(f"{path} is not a safetensors file, or a truncated one")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if length > min(_MAX_HEADER, path.stat().st_size):
            raise invalid
        try:
            header = json.loads(file.read(length))
            return dict(header.get("__metadata__", {}))
        except (ValueError, AttributeError, TypeError, RecursionError):
            raise invalid from None


def with_sorted_metadata(content: bytes) -> bytes:
    """Returns a safetensors file with the metadata in its header sorted by name.

    The library writes metadata in an order that differs between processes, so equal trainings
    would write different files.
    """
    end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
    header = json.loads(content[_LENGTH_BYTES:end])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)  # tensors start at a multiple of 8 bytes
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text + content[end:]
