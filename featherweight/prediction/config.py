"""Options of `predict`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from featherweight.errors import UsageError


@dataclass(frozen=True)
class PredictConfig:
    """What to answer, and where the answers go."""

    texts: list[str] = field(default_factory=list)
    """Texts to answer."""
    weights: Path | None = None
    """Bundle, run directory, portable .safetensors file or "pretrained"; without it: the newest
    run, or the pretrained bundle where there is none."""
    csv: Path | None = None
    """File of texts: .csv, .tsv, or .txt with lines of text;label; also gzipped."""
    jsonl: Path | None = None
    """File of texts with a JSON object a line: .jsonl or .ndjson, also gzipped."""
    parquet: Path | None = None
    """File of texts: .parquet."""
    output_path: Path | None = None
    """File for the answers, .csv, .jsonl or .parquet (which cannot be resumed); without it:
    <input name>_predictions.csv beside the input."""
    engine: Literal["local", "ray"] = "local"
    """Answer on this machine, or with a bundle on each machine of a Ray cluster: that of
    RAY_ADDRESS, or one that is started here. With ray, --csv or --parquet names a folder of files
    and --output_path a new folder (without it: <folder>_predictions); all machines see both."""
    resume: bool = False
    """Go on with a file of answers that was cut off, at the last batch that it holds."""
    min_confidence: float = 0.0
    """Probability below which the label is empty."""
    text_column: str = "text"
    """Column of the input that holds the texts."""
    raw: bool = False
    """Leave cells as they are that a spreadsheet would run as formulas."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes CUDA if there is any."""
    output_dir: Path = Path("outputs")
    """Folder in which the newest run is looked for."""
    json: bool = False
    """Print one JSON list instead of a table."""

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            UsageError: A number is out of its range; the message names the flag.
        """
        if not 0 <= self.min_confidence <= 1:
            raise UsageError(f"--min_confidence must be in [0, 1], not {self.min_confidence}")
