"""What the commands of the README print, one after the other, on the corpus that ships.

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
    with TemporaryDirectory() as folder:
        for script in SCRIPTS:
            (Path(folder) / script).symlink_to(ROOT / script)
        printed = {}
        for name, command in STEPS.items():
            print(f"$ {command}", flush=True)
            if name == "serve":
                service = _started(command, folder)
                assert service.stdout
                printed[name] = service.stdout.readline()
                continue
            printed[name] = _run(command, folder)
        service.send_signal(signal.SIGINT)
        service.wait(timeout=60)
    steps = [
        {"name": name, "command": command, "prints": printed[name].rstrip()}
        for name, command in STEPS.items()
    ]
    bundled = load_dataset(DataConfig())
    print(write_record("walkthrough", bundled.identity(), {"steps": steps}))


def _run(command: str, folder: str) -> str:
    done = subprocess.run(
        shlex.split(command), cwd=folder, env=_environment(), stdout=subprocess.PIPE, text=True,
        check=True,
    )  # fmt: skip
    return done.stdout


def _started(command: str, folder: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        shlex.split(command), cwd=folder, env=_environment(), stdout=subprocess.PIPE, text=True
    )


def _environment() -> dict[str, str]:
    """Returns that of this process, in which the commands are those of its interpreter."""
    commands = str(Path(sys.executable).parent)
    return os.environ | {"PATH": os.pathsep.join([commands, os.environ.get("PATH", "")])}


if __name__ == "__main__":
    walkthrough()
