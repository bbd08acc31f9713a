"""Flags of `export`, `verify` and `serve`: each field is a flag, its docstring the help."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from featherweight.errors import UsageError, require_range

_ORIGIN = re.compile(r"https?://([\w.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?")


@dataclass(frozen=True)
class ExportConfig:
    """Options of export."""

    weights: Path | None = None
    """Run directory of an LSTM or of a variant of it; default: the newest run."""
    output_path: Path | None = None
    """Folder or .zip file to write; default: "bundle" in the run directory."""
    license_note: str = ""
    """License of the training data, stored in the bundle; default: that of the bundled corpus if
    it was used, otherwise none."""
    overwrite: bool = False
    """Replace an existing bundle."""
    output_dir: Path = Path("outputs")
    """Folder to search for the newest run."""


@dataclass(frozen=True)
class VerifyConfig:
    """Options of verify."""

    weights: list[Path] = field(default_factory=list)
    """Bundles to check: folders or .zip files written by export, or "pretrained"."""


@dataclass(frozen=True)
class ServeConfig:
    """Options of serve."""

    weights: Path | None = None
    """Bundle, run directory, .safetensors file or "pretrained"; default: the newest run, or the
    pretrained bundle if there is none."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 accepts requests from other machines."""
    port: int = 8000
    """Port to listen on; 0 chooses a free one."""
    min_confidence: float = 0.0
    """Probability below which the label is left empty."""
    max_texts: int = 1_000
    """Maximum number of texts in a request."""
    max_characters: int = 10_000
    """Maximum number of characters in a text."""
    max_body_bytes: int = 1_000_000
    """Maximum size of a request body in bytes."""
    batch_size: int = 256
    """Maximum number of texts of concurrent requests in one batch."""
    max_queue: int = 16
    """Maximum number of requests that are computed or wait; beyond it the answer is 503."""
    max_connections: int = 256
    """Maximum number of open connections; beyond it the answer is 503."""
    cors_origin: list[str] = field(default_factory=list)
    """Origins of the web pages elsewhere that may send requests, such as https://example.org."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto uses CUDA if available."""
    output_dir: Path = Path("outputs")
    """Folder to search for the newest run."""

    def __post_init__(self) -> None:
        sizes = ("max_texts", "max_characters", "max_body_bytes", "batch_size")
        require_range(self, "at least 1", *sizes, "max_queue", "max_connections")
        require_range(self, "in [0, 65535]", "port")
        require_range(self, "in [0, 1]", "min_confidence")
        for origin in self.cors_origin:
            if not _ORIGIN.fullmatch(origin):
                raise UsageError(
                    f"--cors_origin {origin}: give scheme, host and port of a page only, as in "
                    "https://example.org or http://localhost:3000"
                )
