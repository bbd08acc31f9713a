"""Options of `test` and `compare`; each field becomes a flag, its docstring the help."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from featherweight.data.sources import DataConfig


@dataclass(frozen=True)
class EvaluationConfig(DataConfig):
    """What to test, and on which texts."""

    data: str = ""
    """Hub id, folder, file or "bundled"; empty: the data the run was trained on."""
    weights: Path | None = None
    """Run directory, portable .safetensors file, bundle or "pretrained"; without it: the newest
    run."""
    split: Literal["train", "validation", "test"] = "test"
    """Which texts to answer."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes CUDA if there is any."""
    threads: int = 1
    """CPU threads while it is timed."""
    output_dir: Path = Path("outputs")
    """Folder in which the newest run is looked for."""
    json: bool = False
    """Print one JSON object instead of tables."""


@dataclass(frozen=True)
class CompareConfig(DataConfig):
    """What to compare, and on which texts."""

    weights: list[Path] = field(default_factory=list)
    """Run directories, portable .safetensors files, bundles, and "pretrained"."""
    data: str = ""
    """Hub id, folder, file or "bundled"; empty: the data the runs were trained on."""
    split: Literal["validation", "test"] = "test"
    """Which texts to answer."""
    reference: str = ""
    """Name of the row that the others are tested against; empty: the first."""
    group: bool = False
    """Make one row of runs that differ in their seed only, as mean ± standard deviation."""
    batch_sizes: str = "1,32"
    """Texts per timed batch, separated by commas."""
    threads: int = 1
    """CPU threads of each contender while it is timed."""
    device: Literal["auto", "cpu"] = "auto"
    """Time on the CPU only, or on the GPU too if there is one."""
    cuda_graphs: bool = False
    """Add a row for each LSTM that replays CUDA graphs."""
    robustness: bool = False
    """Ask again with the texts in capitals, with punctuation, typos, emoji and elongations."""
    disagreements: int = 0
    """List so many texts on which the contenders disagree most."""
    output_path: Path | None = None
    """Folder for the report: .md .csv .json .html and pictures."""
    json: bool = False
    """Print the record as JSON instead of tables."""
