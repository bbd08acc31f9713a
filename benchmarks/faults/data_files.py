"""Broken data files: reading one ends in rows or in one line, for training and for predictions."""

import gzip
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.feather
import pyarrow.parquet
from faults.commands import call
from faults.materials import Materials
from faults.sweep import Case, Part, Violation, named
from openpyxl import Workbook

from featherweight.data.checks import check
from featherweight.data.dataset import DataConfig, load_dataset
from featherweight.errors import FeatherweightError

_ROWS = [
    (f'text {row}, with a "quote" and ünïcödé 😂', ("joy", "anger")[row % 2]) for row in range(40)
]
_CHANGES_PER_FILE = (1, 1, 1, 2, 4)
# What tends to confuse readers.
_TOKENS = (
    b"\0", b'"', b"'", b"\r", b"\n\n\n", b"\r\n", b",,,,", b"\t\t", b"\xff\xfe", b"\xef\xbb\xbf",
    b"\x80\xc0", b"\xed\xa0\x80", b"[" * 2_000, b'{"a":' * 2_000, b"null", b"NaN", b"1e999",
    b"-1", b"9" * 400, b"\\ud800", b"\x1a", b"\x1f\x8b", b"PK\x03\x04", b"PAR1", b"__label__",
    b'""""', b";;", b"|", b"a" * 70_000, "\u2028\u202e".encode(), b"=1+1",
)  # fmt: skip


def part(made: Materials, count: int) -> Part:
    """Returns the part: each case breaks a file of one format and reads it twice."""

    def prepare(folder: Path) -> Case:
        originals = {path.name: path.read_bytes() for path in _written(folder)}
        names = sorted(originals)

        def case(_: int, generator: random.Random) -> str:
            name = generator.choice(names)
            path = folder / name
            path.write_bytes(_broken(originals[name], generator))
            with named(f"{name}, read for training"):
                trained = _read_for_training(path)
            with named(f"{name}, read for predictions"):
                predicted = _read_for_predictions(made.bundle, path, folder / "out.csv")
            if trained != predicted:
                return "rows for one of the two"
            return "rows" if trained else "refused"

        return case

    return Part("data files", count, prepare)


def _written(folder: Path) -> list[Path]:
    """Writes the same rows in each format."""
    columns = {"text": [text for text, _ in _ROWS], "label": [label for _, label in _ROWS]}
    objects = [{"text": text, "label": label} for text, label in _ROWS]
    texts = {
        "a.csv": "text,label\n"
        + "".join('"{}",{}\n'.format(text.replace('"', '""'), label) for text, label in _ROWS),
        "a.tsv": "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in _ROWS),
        "a.jsonl": "".join(f"{json.dumps(each)}\n" for each in objects),
        "a.json": json.dumps(objects, ensure_ascii=False),
        "a.txt": "".join(f"{text};{label}\n" for text, label in _ROWS),
        "b.txt": "".join(f"__label__{label} {text}\n" for text, label in _ROWS),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    content = (folder / "a.csv").read_bytes()
    (folder / "a.csv.gz").write_bytes(gzip.compress(content))
    with zipfile.ZipFile(folder / "a.csv.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", content)
    table = pyarrow.table(columns)
    pyarrow.parquet.write_table(table, folder / "a.parquet")
    pyarrow.feather.write_feather(table, folder / "a.arrow", compression="uncompressed")
    book = Workbook()
    for row in (("text", "label"), *_ROWS):
        book.active.append(row)
    book.save(folder / "a.xlsx")
    return sorted(folder.glob("[ab].*"))


def _broken(content: bytes, generator: random.Random) -> bytes:
    for _ in range(generator.choice(_CHANGES_PER_FILE)):
        content = generator.choice(_CHANGES)(content or b"a", generator)
    return content


def _flip(content: bytes, generator: random.Random) -> bytes:
    place = generator.randrange(len(content))
    return content[:place] + bytes([generator.randrange(256)]) + content[place + 1 :]


def _cut(content: bytes, generator: random.Random) -> bytes:
    return content[: generator.randrange(len(content))]


def _delete(content: bytes, generator: random.Random) -> bytes:
    start, end = _range(content, generator)
    return content[:start] + content[end:]


def _repeat(content: bytes, generator: random.Random) -> bytes:
    start, end = _range(content, generator)
    return content[:start] + content[start:end] * generator.randint(2, 5) + content[end:]


def _insert(content: bytes, generator: random.Random) -> bytes:
    place = generator.randrange(len(content) + 1)
    return content[:place] + generator.choice(_TOKENS) + content[place:]


def _scramble(content: bytes, generator: random.Random) -> bytes:
    start, end = _range(content, generator)
    return content[:start] + generator.randbytes(end - start) + content[end:]


_CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip, _cut, _delete, _repeat, _insert, _insert, _scramble,
)  # fmt: skip


def _range(content: bytes, generator: random.Random) -> tuple[int, int]:
    start = generator.randrange(len(content))
    return start, min(len(content), start + generator.choice((1, 2, 8, 64, 512)))


def _read_for_training(path: Path) -> bool:
    """Returns whether there are rows; as in `train`, an error is one line."""
    try:
        dataset = load_dataset(DataConfig(data=str(path)))
        check(dataset)
    except (FeatherweightError, OSError) as error:
        if len(str(error).splitlines()) != 1:
            raise Violation(f"not one line: {error}") from None
        return False
    return len(dataset.train) > 0


def _read_for_predictions(bundle: Path, path: Path, output: Path) -> bool:
    """Returns whether there are rows."""
    output.unlink(missing_ok=True)
    answer = call("predict", "--weights", bundle, "--csv", path, "--output_path", output)
    return not answer.require_one_line().code
