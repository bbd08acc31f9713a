"""Options of `predict`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from featherweight.data.dialect import Dialect
from featherweight.errors import require_range


@dataclass(frozen=True)
class PredictConfig(Dialect):
    """Input, model and output."""

    texts: list[str] = field(default_factory=list)
    """Texts to classify. If there are none and no file: the lines of the standard input."""
    weights: Path | None = None
    """Run directory, bundle, portable .safetensors file, or "pretrained". If omitted: the newest
    run, or the pretrained bundle if there is no run."""
    csv: Path | None = None
    """Input file. Its extension determines the format: .csv, .tsv, .txt with one text per line,
    .xlsx, .jsonl, .json, .parquet or .arrow, also compressed. "-" reads CSV from the standard
    input and, without --output_path, writes CSV to the standard output."""
    jsonl: Path | None = None
    """Input file, the same as --csv."""
    parquet: Path | None = None
    """Input file, the same as --csv."""
    output_path: Path | None = None
    """Output file: .csv, .jsonl, or .parquet, which cannot be resumed. If omitted:
    <input name>_predictions.csv in the folder of the input."""
    engine: Literal["local", "ray"] = "local"
    """Run on this machine, or on each machine of a Ray cluster: the one at RAY_ADDRESS, or a new
    local one. With ray, the model must be a bundle, --csv or --parquet is a folder of files, and
    --output_path a new folder (if omitted: <folder>_predictions); all machines must see both."""
    resume: bool = False
    """Continue an interrupted output file after its last complete batch."""
    bad_rows: Literal["blank", "skip", "fail"] = "blank"
    """Rows that have no text or cannot be read: blank writes them without a prediction, skip leaves
    them out, fail stops at the first one. No text is an empty cell or line, null, nan, None."""
    min_confidence: float = 0.0
    """Leave the label empty if its probability is below this value."""
    text_column: str = "text"
    """Column of the input with the texts."""
    answer_prefix: str = ""
    """Put before the names of the columns that are added to those of the input. If omitted, a name
    that the input already has gets a number: confidence_2."""
    known_words: bool = False
    """Add a column with the number of words of the text that the model knows. With 0, the
    prediction says nothing about the text."""
    raw: bool = False
    """Do not escape cells that a spreadsheet would execute as formulas."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; auto uses CUDA if available."""
    output_dir: Path = Path("outputs")
    """Folder that is searched for the newest run."""
    json: bool = False
    """Print a JSON list instead of a table."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range(self, "in [0, 1]", "min_confidence")
