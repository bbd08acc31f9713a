"""Every method of compression on `feather` and `classic`, judged on the test split.

Variants were chosen and rejected on validation when they were made; the test split is read for
this table only. Runs that are in the folder already are taken as they are.

$ python benchmarks/compression.py --data dair-ai/emotion --runs outputs/versus
"""

import logging
from pathlib import Path
from typing import Any

from compress.methods import METHODS
from jsonargparse import auto_cli
from record import RESULTS, write_record
from runs import lstm, variant

from featherweight import plots
from featherweight.config import CompareConfig
from featherweight.contest import compete, enter
from featherweight.dataset import DataConfig, load_dataset
from featherweight.run import COMPRESSION, Run, atomic_open
from lstm.config import Preset


def compression(
    data: str,
    runs: Path,
    labels: str = "",
    presets: tuple[Preset, ...] = ("feather", "classic"),
    sparsity: float = 0.6,
    threads: int = 1,
) -> None:
    """Makes what is not there yet, and writes results/compression-PRESET.json.

    Args:
        data: Hub id, folder or file.
        runs: Folder for the runs.
        labels: Label names in id order, where the data does not name its integers.
        presets: Origins, each with seed 0.
        sparsity: Share of the weights that pruning sets to zero.
        threads: CPU threads of each contender while it is timed.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    source = DataConfig(data=data, labels=labels)
    dataset = load_dataset(source)
    for name in presets:
        origin = lstm(runs, name, source, seed=0)
        variants = [variant(origin, method, sparsity=sparsity) for method in METHODS]
        entrants = [enter(path, "auto") for path in (origin, *variants)]
        record, _ = compete(CompareConfig(threads=threads), entrants, source)
        del record["command"], record["environment"]  # write_record knows this program's own
        figures = {
            "comparison": record,
            "variants": [_record(path) for path in variants],
        }
        print(write_record(f"compression-{name}", dataset.identity(), figures))
        with atomic_open(RESULTS / f"compression_{name}.png", "wb") as file:
            file.write(plots.trade_off(record))


def _record(path: Path) -> dict[str, Any]:
    """What was done to a variant, without the flags, which hold local paths."""
    record: dict[str, Any] = Run(path).read_json(COMPRESSION)
    del record["flags"]
    return record


if __name__ == "__main__":
    auto_cli(compression, as_positional=False)
