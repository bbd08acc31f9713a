"""What the verbs of the ring can be told; each field becomes a flag, its docstring the help."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from featherweight.errors import UsageError
from featherweight.sources import DataConfig


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


@dataclass(frozen=True)
class PushConfig:
    """Which run goes to the Hub, and where."""

    weights: Path | None = None
    """Run directory; without it: the newest run."""
    repo_id: str = ""
    """Repository on the Hub, as owner/name; it is made if it is not there."""
    private: bool = False
    """Let only yourself see a repository that is made; an old one must be private already."""
    license: str = ""
    """License of the model for its card, such as mit or apache-2.0; empty: none is stated."""
    dry_run: bool = False
    """Show what would be sent, and send nothing."""
    output_dir: Path = Path("outputs")
    """Folder in which the newest run is looked for."""
