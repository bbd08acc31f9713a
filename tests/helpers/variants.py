"""Makes variants of runs, and looks at what that leaves in a folder."""

from pathlib import Path
from typing import Any

from compress.config import CompressConfig
from compress.variant import compress_run
from featherweight.run import Run


def compressed(weights: Path | None, method: Any = "fp16", **flags: Any) -> Run:
    return compress_run(CompressConfig(weights=weights, method=method, device="cpu", **flags))[0]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
