"""Measures the seconds from `python train.py` to the finished run.

$ python benchmarks/training_time.py --data dair-ai/emotion
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from shared.record import run, write_record

from featherweight.data.dataset import DataConfig, load_dataset

ROOT = Path(__file__).parent.parent


def training_time(source: DataConfig, runs: int = 3) -> None:
    """Trains with the defaults in a separate process and writes results/training-time.json.

    Args:
        source: The data set.
        runs: Number of trainings.
    """
    rows = []
    with TemporaryDirectory() as folder:
        for number in range(runs):
            name = f"run-{number}"
            command = [sys.executable, ROOT / "train.py", "--data", source.data, "--labels",
                       source.labels, "--output_dir", folder, "--name", name]  # fmt: skip
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - started
            history = (Path(folder) / name / "history.jsonl").read_text().splitlines()
            epochs = [json.loads(line) for line in history]
            per_epoch, speed = (
                statistics.median(epoch[key] for epoch in epochs)
                for key in ("seconds", "texts_per_second")
            )
            rows.append(
                {
                    "seconds": seconds, "epochs": len(epochs), "seconds_per_epoch": per_epoch,
                    "texts_per_second": speed,
                }
            )  # fmt: skip
            print(rows[-1])
    write_record("training-time", load_dataset(source).identity(), {"rows": rows})


if __name__ == "__main__":
    run(training_time)
