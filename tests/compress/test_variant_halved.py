import shutil

import numpy as np
import pytest

from compress.lstm.half import temporary_fp16_copy
from featherweight import load
from featherweight.run import MODEL, Run
from tests.helpers.variants import compressed, contents

TEXTS = ["so happy 😂", "i miss my dog", "zzz"]

pytestmark = pytest.mark.usefixtures("undrawn")


def test_the_temporary_fp16_copy_equals_the_variant_and_is_removed(run: Run) -> None:
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


def test_a_compressed_run_gets_no_copy(run: Run) -> None:
    with temporary_fp16_copy(compressed(run.path, "bf16").path) as paths:
        assert paths == []


def test_a_weights_file_gets_a_copy(run: Run) -> None:
    with temporary_fp16_copy(run.file(MODEL)) as paths:
        assert [load(path, "cpu").name for path in paths] == ["tiny (fp16)"]
