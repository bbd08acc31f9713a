"""Quality of the presets over several seeds, beside the baselines, on one data set.

Each checkpoint is chosen on validation; the test split is read once a run, for this table.

$ python benchmarks/quality.py --data dair-ai/emotion
$ python benchmarks/quality.py --data sst2/ --presets '[feather]' --seeds '[0,1,2]'
"""

import logging
import tempfile
import time
from pathlib import Path

from jsonargparse import auto_cli
from shared.record import write_record

from featherweight.baselines import baselines
from featherweight.data.dataset import DataConfig, load_dataset
from featherweight.loading import load
from featherweight.quality.evaluation import evaluate
from lstm.config import Preset, preset
from lstm.train import train


def quality(
    data: str,
    labels: str = "",
    presets: tuple[Preset, ...] = ("feather", "classic"),
    seeds: tuple[int, ...] = (0, 1, 2),
) -> None:
    """Trains every preset with every seed and writes results/quality-NAME.json.

    Args:
        data: Hub id, folder or file.
        labels: Label names in id order, where the data does not name its integers.
        presets: What to train.
        seeds: With which seeds.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    dataset = load_dataset(DataConfig(data=data, labels=labels))
    test = dataset.split("test")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in presets:
            for seed in seeds:
                config = preset(
                    name, data=data, labels=labels, seed=seed, name=f"{name}-{seed}",
                    output_dir=Path(folder),
                )  # fmt: skip
                started = time.perf_counter()
                run, validation = train(config)
                seconds = time.perf_counter() - started
                evaluation = evaluate(load(run.path), test, dataset.name)
                row = {
                    "model": name,
                    "seed": seed,
                    "training_seconds": round(seconds, 1),
                    "validation": validation.to_json(),
                    "test": evaluation.to_json(),
                }
                rows.append(row)
                print(name, seed, validation.scores, evaluation.scores, flush=True)
    rows += [
        {
            "model": baseline.name,
            "seed": None,
            "validation": evaluate(baseline, dataset.validation, dataset.name).to_json(),
            "test": evaluate(baseline, test, dataset.name).to_json(),
        }
        for baseline in baselines(dataset.train, dataset.labels)
    ]
    print(write_record(f"quality-{dataset.name}", dataset.identity(), {"rows": rows}))


if __name__ == "__main__":
    auto_cli(quality, as_positional=False)
