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


def training_time(data: str, labels: str = "", runs: int = 3) -> None:
    """Trains with the defaults in a separate process and writes results/training-time.json.

    Args:
        data: Hub id, folder or file.
        labels: Label names in id order, if the data does not name its integers.
        runs: Number of trainings.
    """
    rows = []
    with TemporaryDirectory() as folder:
        for number in range(runs):
            name = f"run-{number}"
            command = [sys.executable, ROOT / "train.py", "--data", data, "--labels", labels,
                       "--output_dir", folder, "--name", name]  # fmt: skip
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - started
            history = (Path(folder) / name / "history.jsonl").read_text().splitlines()
            epochs = [json.loads(line) for line in history]
            rows.append(
                {
                    "seconds": seconds,
                    "epochs": len(epochs),
                    "seconds_per_epoch": statistics.median(row["seconds"] for row in epochs),
                    "texts_per_second": statistics.median(
                        row["texts_per_second"] for row in epochs
                    ),
                }
            )
            print(rows[-1])
    dataset = load_dataset(DataConfig(data=data, labels=labels))
    write_record("training-time", dataset.identity(), {"rows": rows})


if __name__ == "__main__":
    run(training_time)
