"""Records what the commands of the README print on the bundled corpus, one after the other.

$ python benchmarks/walkthrough.py
"""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from shared.record import write_record

from featherweight.data.dataset import DataConfig, load_dataset

ROOT = Path(__file__).parent.parent
SCRIPTS = ("train.py", "test.py")
STEPS = {
    "train": "python train.py --name mine",
    "test": "python test.py",
    "compare": "featherweight compare outputs/mine pretrained",
    "compress": "featherweight compress --weights outputs/mine --method int8",
    "export": "featherweight export --weights outputs/mine --output_path bundle",
    "verify": "featherweight verify bundle",
    "predict": 'featherweight predict "i feel so happy today" "why would they do that to me"',
    "serve": "featherweight serve --weights bundle --port 8000",
    "curl": "curl -s localhost:8000/predict -H 'Content-Type: application/json' "
    """-d '{"text": "i feel so happy today"}'""",
}


def walkthrough() -> None:
    """Runs the commands in an empty folder and writes results/walkthrough.json."""
    printed = {}
    with TemporaryDirectory() as folder:
        for script in SCRIPTS:
            (Path(folder) / script).symlink_to(ROOT / script)
        for name, command in STEPS.items():
            print(f"$ {command}", flush=True)
            process = _start(command, folder)
            assert process.stdout
            if name == "serve":
                service = process
                printed[name] = process.stdout.readline()
                continue
            printed[name] = process.stdout.read()
            if process.wait():
                raise subprocess.CalledProcessError(process.returncode, command)
        service.send_signal(signal.SIGINT)
        service.wait(timeout=60)
    steps = [
        {"name": name, "command": command, "prints": printed[name].rstrip()}
        for name, command in STEPS.items()
    ]
    write_record("walkthrough", load_dataset(DataConfig()).identity(), {"steps": steps})


def _start(command: str, folder: str) -> subprocess.Popen[str]:
    """Starts a command with the programs of this interpreter."""
    programs = str(Path(sys.executable).parent)
    path = os.pathsep.join([programs, os.environ.get("PATH", "")])
    return subprocess.Popen(
        shlex.split(command), cwd=folder, env=os.environ | {"PATH": path},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


if __name__ == "__main__":
    walkthrough()
