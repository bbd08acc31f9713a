import math
from typing import Any

import pytest

from compress.config import CompressConfig
from featherweight.cli import main
from featherweight.errors import UsageError

WRONG: list[tuple[str, Any]] = [
    ("sparsity", -0.1), ("sparsity", 1.0), ("sparsity", math.nan),
    ("vocabulary", 0.0), ("vocabulary", 1.1), ("vocabulary", -1.0), ("vocabulary", math.nan),
    ("alpha", -0.01), ("alpha", 1.01), ("alpha", math.nan),
    ("temperature", 0.0), ("temperature", -1.0), ("temperature", math.inf),
    ("temperature", math.nan),
    ("retraining_epochs", -1),
    ("retraining_rate", -1e-3), ("retraining_rate", math.inf), ("retraining_rate", math.nan),
    ("max_f1_drop", -0.01), ("max_f1_drop", 1.5), ("max_f1_drop", math.nan),
    ("seed", -1), ("seed", 2**32),
    ("hidden", 0.0), ("hidden", 1.1), ("hidden", -0.5), ("hidden", math.nan),
    ("rank", 0), ("rank", -1), ("trials", 0), ("trials", -3),
    ("calibration_texts", 0), ("calibration_texts", -1),
    ("lora_alpha", 0.0), ("lora_alpha", -32.0), ("lora_alpha", math.inf),
    ("lora_alpha", math.nan),
]  # fmt: skip
EDGES: list[tuple[str, Any]] = [
    ("sparsity", 0.0), ("sparsity", 0.999), ("vocabulary", 1.0), ("vocabulary", 1e-9),
    ("alpha", 0.0), ("alpha", 1.0), ("retraining_epochs", 0), ("max_f1_drop", 0.0),
    ("max_f1_drop", 1.0), ("temperature", 0.1), ("seed", 2**32 - 1),
    ("retraining_rate", 0.0), ("hidden", 1.0), ("hidden", 0.01), ("rank", 1), ("trials", 1),
    ("calibration_texts", 1), ("lora_alpha", 0.5),
]  # fmt: skip


@pytest.mark.parametrize(("flag", "value"), WRONG)
def test_values_out_of_range_are_refused(flag: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^--{flag} must be .*{value}$") as caught:
        CompressConfig(**{flag: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("flag", "value"), EDGES)
def test_limits_of_the_ranges_are_valid(flag: str, value: Any) -> None:
    assert getattr(CompressConfig(method="prune", **{flag: value}), flag) == value


@pytest.mark.parametrize("method", ["qat", "qat-int4", "qlora", "all"])
def test_methods_that_need_an_epoch(method: Any) -> None:
    with pytest.raises(UsageError, match=f"--retraining_epochs must be at least 1 .*{method}"):
        CompressConfig(method=method, retraining_epochs=0)
    CompressConfig(method=method, retraining_epochs=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sparsity", "1.5"], "--sparsity"),
        (["--sparsity", "many"], "sparsity"),
        (["--method", "int2"], "int2"),
        (["--scope", "everywhere"], "everywhere"),
        (["--method", "qat", "--retraining_epochs", "0"], "--retraining_epochs"),
        (["--seed", "-1"], "--seed"),
        (["--int8_mode", "static"], "int8_mode"),
        (["--hidden", "0"], "--hidden"),
        (["--rank", "0"], "--rank"),
        (["--lora_alpha", "0"], "--lora_alpha"),
        (["--calibration_texts", "0"], "--calibration_texts"),
        (["--calibration_texts", "some"], "calibration_texts"),
        (["--trials", "0"], "--trials"),
    ],
)
def test_wrong_flags_are_refused_without_a_traceback(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["compress", *arguments])
    except SystemExit as error:  # from argparse
        code = int(str(error.code))
    assert code == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""
