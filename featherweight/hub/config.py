"""Options of `push`."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PushConfig:
    """Run and repository."""

    weights: Path | None = None
    """Run directory. If omitted: the newest run."""
    repo_id: str = ""
    """Repository on the Hub, as owner/name; created if it does not exist."""
    private: bool = False
    """Create the repository as private; an existing one must already be private."""
    license: str = ""
    """License for the model card, such as mit or apache-2.0. If omitted: none is stated."""
    dry_run: bool = False
    """List the files without uploading anything."""
    output_dir: Path = Path("outputs")
    """Folder that is searched for the newest run."""
