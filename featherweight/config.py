"""Options of `test` and `compare`; each field becomes a flag, its docstring the help."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from featherweight.data.sources import DataConfig


@dataclass(frozen=True)
class EvaluationConfig(DataConfig):
    """Evaluation: model, texts, device and output."""

    data: str = ""
    """Hub id, folder, file or "bundled"; default: the data the run was trained on."""
    weights: Path | None = None
    """Run directory, portable .safetensors file, bundle or "pretrained"; default: the newest
    run."""
    split: Literal["train", "validation", "test"] = "test"
    """Split to evaluate."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; auto uses CUDA if available."""
    threads: int = 1
    """Number of CPU threads for timing."""
    output_dir: Path = Path("outputs")
    """Folder that is searched for the newest run."""
    json: bool = False
    """Print one JSON object instead of tables."""


@dataclass(frozen=True)
class CompareConfig(DataConfig):
    """Comparison: models, texts, timing and report."""

    weights: list[Path] = field(default_factory=list)
    """Models to compare: run directories, portable .safetensors files, bundles or "pretrained"."""
    data: str = ""
    """Hub id, folder, file or "bundled"; default: the data the runs were trained on."""
    split: Literal["validation", "test"] = "test"
    """Split to evaluate."""
    reference: str = ""
    """Name of the model that the others are tested against; default: the first."""
    group: bool = False
    """Merge runs that differ only in their seed into one row: mean ± standard deviation."""
    batch_sizes: str = "1,32"
    """Batch sizes for timing, separated by commas."""
    threads: int = 1
    """Number of CPU threads for timing."""
    device: Literal["auto", "cpu"] = "auto"
    """Devices for timing: auto is the CPU, and the GPU if available."""
    cuda_graphs: bool = False
    """Add a row for each LSTM with CUDA graphs."""
    robustness: bool = False
    """Also evaluate on upper-cased texts and on texts with punctuation, typos, emoji and
    elongations."""
    disagreements: int = 0
    """Number of texts to list on which the models disagree most."""
    output_path: Path | None = None
    """Folder for the report (.md, .csv, .json, .html and images)."""
    json: bool = False
    """Print one JSON object instead of tables."""
