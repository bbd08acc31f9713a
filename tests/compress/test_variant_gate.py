import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from compress import variant
from compress.config import CompressConfig
from compress.variant import compress_run, quality_loss
from featherweight.cli import main
from featherweight.quality.evaluation import Evaluation
from featherweight.run import Run
from featherweight.timing.latency import Contender, Latency
from tests.helpers.variants import compressed

pytestmark = pytest.mark.usefixtures("undrawn")


def test_a_loss_above_the_limit_is_recorded_and_printed(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    # 1 % of the weights remains, without retraining.
    flags = {"sparsity": 0.99, "retraining_epochs": 0}
    config = CompressConfig(weights=run.path, method="prune", device="cpu", **flags)  # type: ignore[arg-type]
    variant, (evaluation, origin) = compress_run(config)
    drop = origin.scores["macro_f1"] - evaluation.scores["macro_f1"]
    assert drop > 0.01
    reason = variant.read_json("compression.json")["rejected"]
    assert reason == f"it loses {drop:.4f} of validation macro-F1, 0.01 is allowed"
    arguments = ["compress", "--weights", str(run.path), "--method", "prune", "--device", "cpu",
                 "--sparsity", "0.99", "--retraining_epochs", "0", "--overwrite"]  # fmt: skip
    assert main(arguments) == 0
    assert f"\nrejected: {reason}\n" in capsys.readouterr().out
    assert main([*arguments, "--max_f1_drop", "1"]) == 0
    assert "\naccepted\n" in capsys.readouterr().out
    assert variant.read_json("compression.json")["rejected"] == ""


@pytest.mark.parametrize("times", [2.0, 0.5])
def test_a_faster_method_is_rejected_if_the_variant_is_slower(
    bert_run: Run, monkeypatch: pytest.MonkeyPatch, times: float
) -> None:
    timed: list[Contender] = []

    def measure(contenders: Sequence[Contender], *_: Any, **__: Any) -> list[Latency]:
        timed.extend(contenders)
        return [
            Latency(
                one.name, "cpu", "a processor", "fp32", "torch", 1, 1, (ms,), (ms,), (ms,), (),
                (7,), (0,), 9.0, 80.0, 1_000, None, 0.1,
            )
            for one, ms in zip(contenders, (3.0, 3.0 * times), strict=True)
        ]  # fmt: skip

    monkeypatch.setattr(variant, "measure", measure)
    made = compressed(bert_run.path, "onnx", max_f1_drop=1.0)
    assert [(one.name, one.weights == bert_run.path) for one in timed] == [
        ("before", True), ("after", False),
    ]  # fmt: skip
    record = made.read_json("compression.json")
    assert record["latency_ms"] == {"1": {"before": 3.0, "after": 3.0 * times}}
    slow = "it is slower on the CPU: 6 ms instead of 3 at batch size 1"
    assert record["rejected"] == (slow if times > 1 else "")


def test_the_limit_is_exact() -> None:
    targets = np.array([0, 0, 1, 1, 2, 2])
    exact = Evaluation("tiny", "moods", "validation", ("a", "b", "c"), targets,
                       np.eye(3, dtype=np.float32)[targets], 9, 9)  # fmt: skip
    worse = dataclasses.replace(
        exact, probabilities=np.eye(3, dtype=np.float32)[[0, 1, 1, 1, 2, 2]]
    )
    # 1 - (2/3 + 4/5 + 1) / 3
    drop = 8 / 45
    assert quality_loss(worse, exact, drop + 1e-9) == ""
    assert quality_loss(worse, exact, drop - 1e-9).startswith(
        "it loses 0.1778 of validation macro-F1"
    )
    assert quality_loss(exact, exact, 0.0) == ""
    assert quality_loss(exact, worse, 0.0) == ""


@pytest.mark.parametrize(("mode", "timed"), [("dynamic", True), ("weight-only", False)])
def test_only_int8_layers_must_be_faster(
    bert_run: Run, monkeypatch: pytest.MonkeyPatch, mode: Any, timed: bool
) -> None:
    monkeypatch.setattr(variant, "_latency_ms", lambda *_: {"1": {"before": 1.0, "after": 2.0}})
    made = compressed(bert_run.path, "int8", int8_mode=mode, max_f1_drop=1.0)
    record = made.read_json("compression.json")
    assert ("speed" in record["gain"]) == timed
    assert bool(record["rejected"]) == timed
