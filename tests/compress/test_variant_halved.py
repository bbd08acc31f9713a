import shutil

import numpy as np
import pytest

from compress.lstm.half import temporary_fp16_copy
from featherweight import load
from featherweight.run import MODEL, Run
from tests.helpers.variants import compressed, contents

TEXTS = ["so happy 😂", "i miss my dog", "zzz"]

pytestmark = pytest.mark.usefixtures("undrawn")


def test_test_gets_an_fp16_copy_that_leaves_no_trace(run: Run) -> None:
    before = contents(run.path)
    with temporary_fp16_copy(run.path) as (path,):
        half = load(path, "cpu")
        assert half.name == "tiny (fp16)"
        assert half.size_bytes() < load(run.path).size_bytes()
        compressed(run.path)
        assert np.array_equal(
            half.logits(TEXTS), load(run.path / "compressed" / "fp16", "cpu").logits(TEXTS)
        )
        shutil.rmtree(run.path / "compressed")
    assert not path.exists()
    assert contents(run.path) == before


@pytest.mark.parametrize("method", ["fp16", "bf16"])
def test_what_is_half_already_gets_no_copy(run: Run, method: str) -> None:
    with temporary_fp16_copy(compressed(run.path, method).path) as paths:
        assert paths == []


def test_a_portable_file_gets_a_copy_too(run: Run) -> None:
    with temporary_fp16_copy(run.file(MODEL)) as paths:
        assert [load(path, "cpu").name for path in paths] == ["tiny (fp16)"]
