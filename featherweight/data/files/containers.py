"""Compressed files: gzip, bzip2, xz, Zstandard, and zip archives of one file."""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from contextlib import ExitStack
from typing import IO

from featherweight.errors import DataError, first_line, requires, shortened

SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zip")
START_BYTES = 8  # that tell formats apart
DECOMPRESSION_ERRORS = (
    EOFError, gzip.BadGzipFile, lzma.LZMAError, zipfile.BadZipFile, zlib.error
)  # fmt: skip


def decompressed(name: str, file: IO[bytes], resources: ExitStack) -> tuple[IO[bytes], str]:
    """Returns the content of a file from its start, and the content's name.

    The first bytes determine the compression, so that a misnamed file is read as well.

    Args:
        name: The file's name for messages; without the suffix, it is that of the content.
        file: The open file; it must be seekable.
        resources: Closed by the caller when the content has been read.

    Raises:
        DataError: A zip archive does not contain exactly one file, or is encrypted or damaged.
        MissingExtraError: The file is compressed with Zstandard and pyarrow is not installed.
    """
    file.seek(0)
    start = file.read(START_BYTES)
    file.seek(0)
    if start.startswith(b"\x1f\x8b"):
        content: IO[bytes] = gzip.GzipFile(fileobj=file)  # type: ignore[assignment]
    elif start.startswith(b"BZh"):
        content = bz2.BZ2File(file)
    elif start.startswith(b"\xfd7zXZ\0"):
        content = lzma.LZMAFile(file)  # noqa: SIM115 (closed by `resources`)
    elif start.startswith(b"\x28\xb5\x2f\xfd"):
        with requires("train"):
            from pyarrow import CompressedInputStream
        content = io.BufferedReader(CompressedInputStream(file, "zstd"))
    elif start.startswith(b"PK\x03\x04"):
        return _only_member(name, file, resources)
    else:
        return file, name
    return resources.enter_context(content), without_suffix(name)


def corrupt(place: str, error: Exception) -> str:
    """Returns the message for one of `DECOMPRESSION_ERRORS`."""
    return f"{place}: corrupt ({first_line(error)}); download or create the file again"


def without_suffix(name: str) -> str:
    """Returns a file name without the suffix of a compression."""
    suffix = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)]


def _only_member(name: str, file: IO[bytes], resources: ExitStack) -> tuple[IO[bytes], str]:
    try:
        archive = resources.enter_context(zipfile.ZipFile(file))
        members = [member for member in archive.infolist() if _is_data(member)]
        if any(member.filename == "[Content_Types].xml" for member in members):
            file.seek(0)
            return file, name  # an Office document, which is a zip archive itself
        if len(members) != 1:
            names = shortened(", ".join(member.filename for member in members[:10])) or "none"
            raise DataError(
                f"{name} must contain one file, but contains {len(members)} ({names}): "
                "unpack it, and give the folder or one of the files"
            )
        return resources.enter_context(archive.open(members[0])), members[0].filename
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(
            f"{name}: corrupt zip archive ({first_line(error)}); download it again"
        ) from error
    except RuntimeError:  # how zipfile says that a password is needed
        raise DataError(f"{name} is encrypted: unpack it first") from None


def _is_data(member: zipfile.ZipInfo) -> bool:
    """Returns whether it is a file of the user and not of the system that made the archive."""
    parts = member.filename.split("/")
    return not (member.is_dir() or parts[0] == "__MACOSX" or parts[-1].startswith("."))
