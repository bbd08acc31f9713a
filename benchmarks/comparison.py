"""Compares `classic`, `feather`, their fp16 variants and the baselines on one machine.

$ python benchmarks/comparison.py --data dair-ai/emotion
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from shared.record import run, write_comparison
from shared.runs import lstm, variant

from featherweight.comparison.compare import compare
from featherweight.config import CompareConfig
from featherweight.data.dataset import DataConfig, load_dataset
from lstm.config import Preset


def comparison(source: DataConfig, threads: int = 1) -> None:
    """Trains the presets, compresses them to fp16, and writes results/comparison.json.

    Args:
        source: The data set.
        threads: CPU threads of each model while it is timed.
    """
    presets: tuple[Preset, ...] = ("classic", "feather")
    with TemporaryDirectory() as folder:
        weights = []
        for name in presets:
            path = lstm(Path(folder), name, source, seed=0, run_name=name)
            weights += [path, variant(path, "fp16")]
        config = CompareConfig(
            weights=weights,
            reference="classic",
            batch_sizes="1,32,256",
            threads=threads,
            robustness=True,
        )
        record = compare(config)
    write_comparison("comparison", "trade_off", load_dataset(source), record)


if __name__ == "__main__":
    run(comparison)
