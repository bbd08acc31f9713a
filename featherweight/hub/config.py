"""Options of `push`."""

from dataclasses import dataclass
from pathlib import Path


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
