"""`classic`, `feather`, their fp16 runs and the baselines in one comparison, on one machine.

$ python benchmarks/comparison.py --data dair-ai/emotion
"""

import logging
from pathlib import Path
from tempfile import TemporaryDirectory

from jsonargparse import auto_cli
from shared.record import RESULTS, write_record

from compress.config import CompressConfig
from compress.variant import compress_run
from featherweight.comparison import plots
from featherweight.comparison.compare import compare
from featherweight.config import CompareConfig
from featherweight.data.dataset import DataConfig, load_dataset
from featherweight.run import atomic_open
from lstm.config import Preset, preset
from lstm.train import train


def comparison(data: str, labels: str = "", threads: int = 1) -> None:
    """Trains the presets, halves them, and writes results/comparison.json and trade_off.png.

    Args:
        data: Hub id, folder or file.
        labels: Label names in id order, where the data does not name its integers.
        threads: CPU threads of each contender while it is timed.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    presets: tuple[Preset, ...] = ("classic", "feather")
    with TemporaryDirectory() as folder:
        weights = []
        for name in presets:
            config = preset(name, data=data, labels=labels, name=name, output_dir=Path(folder))
            run, _ = train(config)
            half, _ = compress_run(CompressConfig(weights=run.path))
            weights += [run.path, half.path]
        record = compare(
            CompareConfig(
                weights=weights,
                reference="classic",
                batch_sizes="1,32,256",
                threads=threads,
                robustness=True,
            )
        )
    dataset = load_dataset(DataConfig(data=data, labels=labels))
    del record["command"], record["environment"]  # write_record knows this program's own
    path = write_record("comparison", dataset.identity(), {"comparison": record})
    with atomic_open(RESULTS / "trade_off.png", "wb") as file:
        file.write(plots.trade_off(record))
    print(path)


if __name__ == "__main__":
    auto_cli(comparison, as_positional=False)
