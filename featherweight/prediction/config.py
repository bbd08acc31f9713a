"""Options of `predict`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from featherweight.errors import require_range


@dataclass(frozen=True)
class PredictConfig:
    """Input, model and output."""

    texts: list[str] = field(default_factory=list)
    """Texts to classify."""
    weights: Path | None = None
    """Run directory, bundle, portable .safetensors file, or "pretrained". If omitted: the newest
    run, or the pretrained bundle if there is no run."""
    csv: Path | None = None
    """Input file: .csv, .tsv, or .txt with lines of text;label, optionally gzipped."""
    jsonl: Path | None = None
    """Input file with one JSON object per line: .jsonl or .ndjson, optionally gzipped."""
    parquet: Path | None = None
    """Input file: .parquet."""
    output_path: Path | None = None
    """Output file: .csv, .jsonl, or .parquet, which cannot be resumed. If omitted:
    <input name>_predictions.csv in the folder of the input."""
    engine: Literal["local", "ray"] = "local"
    """Run on this machine, or on each machine of a Ray cluster: the one at RAY_ADDRESS, or a new
    local one. With ray, the model must be a bundle, --csv or --parquet is a folder of files, and
    --output_path a new folder (if omitted: <folder>_predictions); all machines must see both."""
    resume: bool = False
    """Continue an interrupted output file after its last complete batch."""
    min_confidence: float = 0.0
    """Leave the label empty if its probability is below this value."""
    text_column: str = "text"
    """Column of the input with the texts."""
    raw: bool = False
    """Do not escape cells that a spreadsheet would execute as formulas."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; auto uses CUDA if available."""
    output_dir: Path = Path("outputs")
    """Folder that is searched for the newest run."""
    json: bool = False
    """Print a JSON list instead of a table."""

    def __post_init__(self) -> None:
        require_range(self, "in [0, 1]", "min_confidence")
