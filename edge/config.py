"""What `export` and `verify` can be told; each field becomes a flag, its docstring the help."""

from dataclasses import dataclass, field
from pathlib import Path


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
    """Folders or .zip files that export wrote."""
