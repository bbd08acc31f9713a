import json
import re
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from featherweight.errors import WeightsError
from featherweight.weights import file_sha256, read_metadata
from lstm.vectors.table import BUILTIN, VectorTable

ROOT = Path(__file__).parents[3]
WORDS = ["good", "bad", "café"]
VECTORS = torch.tensor([[1.0, -0.5, 0.25], [-3.0, 2.0, 0.0], [0.001, 0.002, -0.003]])


def saved(path: Path) -> VectorTable:
    VectorTable.of(WORDS, VECTORS).save(path, {"source": "made by hand"})
    return VectorTable.load(path)


def test_vectors_are_selected_by_word_and_unknown_words_have_zeros(tmp_path: Path) -> None:
    table = saved(tmp_path / "table.safetensors")
    vectors = table.select(["", "bad", "unheard", "café", "bad"])
    assert vectors.dtype == torch.float32
    expected = torch.stack([torch.zeros(3), VECTORS[1], torch.zeros(3), VECTORS[2], VECTORS[1]])
    # Rounded by at most half a step, of which the largest number of a row has 127.
    assert (vectors - expected).abs().max(dim=1).values.le(expected.abs().amax(dim=1) / 253).all()


def test_no_known_word_selects_only_zeros(tmp_path: Path) -> None:
    vectors = saved(tmp_path / "table.safetensors").select(["unheard", ""])
    assert torch.equal(vectors, torch.zeros(2, 3))


def test_equal_tables_are_equal_files(tmp_path: Path) -> None:
    for name in ("one", "other"):
        saved(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    assert read_metadata(tmp_path / "one")["source"] == "made by hand"


@pytest.mark.parametrize("length", [0, 9, 100, -1])
def test_damaged_table_is_one_line(tmp_path: Path, length: int) -> None:
    path = tmp_path / "table.safetensors"
    saved(path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(WeightsError, match=re.escape(str(path))) as caught:
        VectorTable.load(path)
    assert "\n" not in str(caught.value)


def test_missing_table_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="install it again"):
        VectorTable.load(tmp_path / "none.safetensors")


def test_table_of_the_package_is_that_of_its_record_and_small() -> None:
    record = json.loads((ROOT / "results" / "word-vectors.json").read_text(encoding="utf-8"))
    assert file_sha256(BUILTIN) == record["sha256"]
    assert BUILTIN.stat().st_size == record["size_bytes"] <= 4_000_000
    table = VectorTable.load(BUILTIN)
    assert tuple(table.integers.shape) == (record["words"], record["columns"])
    assert len(set(table.words)) == record["words"]
    # A token of the tokenizer has neither capitals nor apostrophes.
    assert all(word.isalnum() and word == word.lower() for word in table.words)
    assert {"happy", "im", "dont", "youre", "insightful"} <= set(table.words)
    assert read_metadata(BUILTIN)["license"] == "Apache-2.0"


def test_words_of_like_meaning_have_like_vectors() -> None:
    happy, glad, miserable, thyroid = functional.normalize(
        VectorTable.load(BUILTIN).select(["happy", "glad", "miserable", "thyroid"])
    )
    assert happy @ glad > happy @ miserable > happy @ thyroid


def test_table_and_notice_are_part_of_the_package() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    data = re.search(r'^lstm = \["(.+)"\]$', project, re.MULTILINE)
    assert data is not None
    assert list((ROOT / "lstm").glob(data[1])) == [BUILTIN]
    assert '"NOTICE"' in project
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    assert BUILTIN.relative_to(ROOT).as_posix() in notice
    assert read_metadata(BUILTIN)["source"] in notice
