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
    ("device", "available", "expected"),
    [("auto", False, "cpu"), ("auto", True, "cuda"), ("cpu", True, "cpu"), ("cuda", True, "cuda")],
)
def test_auto_uses_cuda_if_available(
    monkeypatch: pytest.MonkeyPatch, device: str, available: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert resolve_device(device) == expected


def test_unavailable_cuda_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_seeding_enables_deterministic_algorithms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = True
    seed_everything(0)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
    # cuBLAS is deterministic with one of these values only.
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] in (":4096:8", ":16:8")


def test_environment_records_machine_and_libraries() -> None:
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
def test_environment_without_git(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(subprocess, "run", fail)
    assert environment()["git_commit"] is None


def test_environment_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_version", lambda name: None if name == "torch" else "1.0")
    record = environment()
    assert "torch" not in record["libraries"]
    assert "torch_threads" not in record
