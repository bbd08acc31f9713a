import json
import os
import random
import subprocess

import numpy as np
import pytest
import torch

from featherweight import device
from featherweight.device import environment, resolve_device, seed_everything
from featherweight.errors import UsageError


@pytest.mark.parametrize(
    ("asked", "available", "expected"),
    [("auto", False, "cpu"), ("auto", True, "cuda"), ("cpu", True, "cpu"), ("cuda", True, "cuda")],
)
def test_auto_takes_cuda_where_there_is_any(
    monkeypatch: pytest.MonkeyPatch, asked: str, available: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert resolve_device(asked) == expected


def test_cuda_without_cuda_is_wrong_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="--device cpu"):
        resolve_device("cuda")


def draws() -> list[float]:
    return [random.random(), float(np.random.rand()), torch.rand(1).item()]


def test_a_seed_fixes_every_generator() -> None:
    seed_everything(7)
    first = draws()
    assert draws() != first
    seed_everything(7)
    assert draws() == first
    seed_everything(8)
    assert all(a != b for a, b in zip(draws(), first, strict=True))


def test_seeding_asks_for_deterministic_algorithms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = True
    seed_everything(0)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
    # cuBLAS is deterministic with one of these two only.
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] in (":4096:8", ":16:8")


def test_the_environment_says_what_a_figure_was_measured_on() -> None:
    record = json.loads(json.dumps(environment()))
    assert record["libraries"]["torch"] == torch.__version__
    assert {"featherweight", "numpy", "tokenizers"} <= set(record["libraries"])
    assert record["torch_threads"] == torch.get_num_threads()
    assert record["cores"] == os.cpu_count()
    assert record["cpu"]["model"]
    assert {"python", "platform", "gpu", "git_commit"} <= set(record)


@pytest.mark.parametrize(
    "error", [FileNotFoundError("git"), subprocess.CalledProcessError(128, "git")]
)
def test_the_environment_does_without_git(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(subprocess, "run", fail)
    assert environment()["git_commit"] is None


def test_the_environment_does_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_version", lambda name: None if name == "torch" else "1.0")
    record = environment()
    assert "torch" not in record["libraries"]
    assert "torch_threads" not in record
