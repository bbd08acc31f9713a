"""Pushes in a separate process, since the libraries read their environment at import."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from featherweight.hub.push import contents
from featherweight.run import Run

TOKEN = "hf_thisIsASecretThatNoMessageMayHold"
REPO_ID = "ada/moods"
TEXTS = ["i am so happy today", "nobody came and i cried", "stop it , i hate this queue"]
LABELS = ("anger", "joy", "sadness")
LSTM_FILES = {
    "README.md", "config.json", "confusion_matrix.png", "evaluation.json", "labels.json",
    "model.safetensors", "training_curves.png",
}  # fmt: skip
TRANSFORMER_FILES = {
    "README.md", "config.json", "confusion_matrix.png", "evaluation.json", "model.safetensors",
    "tokenizer.json", "tokenizer_config.json", "training_curves.png",
}  # fmt: skip

PROGRAM = """
import json, sys
from pathlib import Path
from featherweight.hub import push
from featherweight.hub.config import PushConfig
from featherweight.errors import FeatherweightError
settings = json.loads(sys.argv[1])
# Short only without a response: a busy machine may need the time for the others.
push.ANSWER_S = settings.pop("answer_s", 60.0)
push.METADATA_S = settings.pop("metadata_s", 120.0)
settings["weights"] = Path(settings["weights"])
try:
    print(push.push(PushConfig(**settings)))
except FeatherweightError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def started(place: Path, endpoint: str, environment: dict[str, str], **flags: Any) -> Any:
    """Starts a push in a process."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(("HF_", "HUGGING", "HTTP", "ALL_PROXY"))
    }
    own = {"HF_HOME": str(place / "home"), "HF_ENDPOINT": endpoint, "NO_PROXY": "*"}
    # The server does not implement the protocol of Xet.
    own |= {"HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    arguments = {"repo_id": REPO_ID} | flags
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps(arguments, default=str)],
        env=inherited | own | environment,
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def pushed(
    place: Path, endpoint: str, environment: dict[str, str] | None = None, **flags: Any
) -> tuple[int, str, str]:
    """Returns exit code, stdout and stderr of a push, which contain no secret."""
    process = started(place, endpoint, environment or {}, **flags)
    stdout, stderr = process.communicate(timeout=600)
    assert "Traceback" not in stderr
    assert TOKEN not in stdout + stderr
    assert "signature=" not in stdout + stderr
    return process.returncode, stdout, stderr


def content(file: Path | bytes) -> bytes:
    return file if isinstance(file, bytes) else file.read_bytes()


def collected(run: Path, folder: Path) -> Path:
    """Writes the files of the repository into a folder."""
    folder.mkdir()
    for name, file in contents(Run(run), REPO_ID).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content(file))
    return folder


def change(run: Path, file: str, /, **values: Any) -> None:
    (run / file).write_text(json.dumps(json.loads((run / file).read_text()) | values))
