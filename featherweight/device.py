"""Choosing a device, seeding, and a record of the machine and software."""

import functools
import importlib.metadata
import os
import platform
import random
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from featherweight.errors import UsageError

_RECORDED_LIBRARIES = (
    "featherweight", "torch", "numpy", "tokenizers", "datasets", "scikit-learn", "onnxruntime",
    "transformers", "accelerate",
)  # fmt: skip
_RECORDED_CPU_FLAGS = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16",
)  # fmt: skip


def resolve_device(name: str) -> str:
    """Turns "auto", "cpu" or "cuda" into "cpu" or "cuda".

    Raises:
        UsageError: "cuda", and no CUDA device is available.
    """
    import torch

    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UsageError("--device cuda: no CUDA device is available; use --device cpu or auto")
    return "cuda" if available and name != "cpu" else "cpu"


def seed_everything(seed: int) -> None:
    """Seeds all random generators and makes torch use deterministic algorithms.

    Source: https://docs.pytorch.org/docs/stable/notes/randomness.html
    """
    import torch

    # Read by cuBLAS when it creates its first handle.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def environment() -> dict[str, Any]:
    """Returns the machine, library versions, threads and commit behind a measurement."""
    record: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "libraries": {
            name: _version(name) for name in _RECORDED_LIBRARIES if _version(name) is not None
        },
        "git_commit": _git_commit(),
    }
    if _version("torch") is not None:
        import torch

        record["torch_threads"] = torch.get_num_threads()
        record["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return record


@functools.cache
def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_flags() -> list[str]:
    """Returns the recorded instruction sets that the CPU has; none where they are unknown."""
    return list(_cpu()["flags"] or [])


def _cpu() -> dict[str, Any]:
    """Returns the CPU model and the instruction sets that affect the speed of small matrices."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return {"model": platform.processor() or platform.machine(), "flags": None}
    lines = [line.partition(":") for line in cpuinfo.read_text().splitlines()]
    fields = {name.strip(): value.strip() for name, _, value in lines}
    flags = fields.get("flags", "").split()
    return {
        "model": fields.get("model name", platform.machine()),
        "flags": [flag for flag in _RECORDED_CPU_FLAGS if flag in flags],
    }


def _git_commit() -> str | None:
    try:
        process = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout.strip()
