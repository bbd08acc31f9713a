"""What each verb of this package can be told; a field becomes a flag, its docstring the help."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from featherweight.errors import UsageError
from featherweight.training.config import require_at_least_one


@dataclass(frozen=True)
class ExportConfig:
    """What leaves as a bundle, and where it goes."""

    weights: Path | None = None
    """Run directory of an LSTM or of a variant of one; without it: the newest run."""
    output_path: Path | None = None
    """Folder or .zip file to write; without it: bundle in the run."""
    license_note: str = ""
    """Terms of the data for those who get the bundle; empty: those of the bundled corpus, or none
    are stated."""
    overwrite: bool = False
    """Replace a bundle that is there."""
    output_dir: Path = Path("outputs")
    """Folder in which the newest run is looked for."""


@dataclass(frozen=True)
class VerifyConfig:
    """Which bundles must still answer as they did when they were exported."""

    weights: list[Path] = field(default_factory=list)
    """Folders or .zip files that export wrote, and "pretrained"."""


@dataclass(frozen=True)
class ServeConfig:
    """Who answers over HTTP, where, and how much at once."""

    weights: Path | None = None
    """Bundle, run directory, portable .safetensors file or "pretrained"; without it: the newest
    run, or the pretrained bundle where there is none."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines ask."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    min_confidence: float = 0.0
    """Probability below which the label is empty."""
    max_texts: int = 1_000
    """Most texts in a request."""
    max_characters: int = 10_000
    """Most characters in a text."""
    max_body_bytes: int = 1_000_000
    """Most bytes in the body of a request."""
    batch_size: int = 256
    """Most texts of concurrent requests that are computed together."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes CUDA if there is any."""
    output_dir: Path = Path("outputs")
    """Folder in which the newest run is looked for."""

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            UsageError: A number is out of its range; the message names the flag.
        """
        require_at_least_one(self, "max_texts", "max_characters", "max_body_bytes", "batch_size")
        if not 0 <= self.port <= 65_535:
            raise UsageError(f"--port must be in [0, 65535], not {self.port}")
        if not 0 <= self.min_confidence <= 1:
            raise UsageError(f"--min_confidence must be in [0, 1], not {self.min_confidence}")
