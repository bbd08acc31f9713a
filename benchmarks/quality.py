"""Measures the quality of the presets over several seeds, and of the baselines, on one data set.

Each checkpoint is chosen on validation; the test split is evaluated once per run.

$ python benchmarks/quality.py --data dair-ai/emotion
$ python benchmarks/quality.py --data sst2/ --presets '[feather]' --seeds '[0,1,2]'
"""

import itertools
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from shared.record import evaluations, run, write_record
from shared.runs import lstm

from featherweight.baselines import baselines
from featherweight.data.dataset import DataConfig, load_dataset
from featherweight.loading import load
from lstm.config import Preset


def quality(
    source: DataConfig,
    presets: tuple[Preset, ...] = ("feather", "classic"),
    seeds: tuple[int, ...] = (0, 1, 2),
) -> None:
    """Trains every preset with every seed and writes results/quality-NAME.json.

    Args:
        source: The data set.
        presets: Presets to train.
        seeds: Seeds of the trainings.
    """
    dataset = load_dataset(source)
    rows = []
    with TemporaryDirectory() as folder:
        for name, seed in itertools.product(presets, seeds):
            started = time.perf_counter()
            path = lstm(Path(folder), name, source, seed)
            seconds = round(time.perf_counter() - started, 1)
            scores = evaluations(load(path), dataset)
            rows.append({"model": name, "seed": seed, "training_seconds": seconds, **scores})
    rows += [
        {"model": baseline.name, "seed": None, **evaluations(baseline, dataset)}
        for baseline in baselines(dataset.train, dataset.labels)
    ]
    write_record(f"quality-{dataset.name}", dataset.identity(), {"rows": rows})


if __name__ == "__main__":
    run(quality)
