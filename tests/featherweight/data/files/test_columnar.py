"""Damaged tables with typed columns."""

from pathlib import Path

import pyarrow
import pyarrow.feather
import pytest

from featherweight.errors import DataError
from tests.helpers.data_files import load


def test_offsets_outside_of_an_arrow_file_are_refused(tmp_path: Path) -> None:
    """Reading such a text would end the process."""
    path = tmp_path / "in.arrow"
    table = pyarrow.table({"text": ["so happy", "so sad"] * 10, "label": ["joy", "sadness"] * 10})
    pyarrow.feather.write_feather(table, path, compression="uncompressed")
    offsets = b"".join(n.to_bytes(4, "little") for n in (8, 14, 22, 28))
    content = path.read_bytes()
    assert content.count(offsets) == 1
    path.write_bytes(content.replace(offsets, offsets[:4] + b"\xff\xff\xff\x7f" + offsets[8:]))
    with pytest.raises(DataError, match=r"in\.arrow, after row 0: corrupt"):
        load(path)
