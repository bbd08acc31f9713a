"""Every method of compression on LSTMs and a fine-tuned transformer, judged on the test split.

Variants were chosen and rejected on validation when they were made; the test split is read for
these tables only. Runs that are in the folder already are taken as they are.

$ python benchmarks/compression.py --data dair-ai/emotion --runs outputs/versus
"""

import logging
from pathlib import Path
from typing import Any, get_args

from jsonargparse import auto_cli
from shared.record import RESULTS, write_record
from shared.runs import lstm, transformer, variant

from compress.origin import Origin
from compress.variant import methods_for
from featherweight.comparison import plots
from featherweight.comparison.compare import compare_entrants
from featherweight.comparison.entrants import enter
from featherweight.config import CompareConfig
from featherweight.data.dataset import DataConfig, load_dataset
from featherweight.run import COMPRESSION, Run, atomic_open
from lstm.config import Preset

# Found on validation; a transformer is trained further for one epoch, which takes minutes.
FLAGS: dict[str, dict[str, Any]] = {
    "feather": {"sparsity": 0.5, "vocabulary": 0.5, "hidden": 0.5},
    "classic": {"sparsity": 0.5, "vocabulary": 0.5},
    "minilm": {
        "sparsity": 0.3, "vocabulary": 0.5, "retraining_epochs": 1, "student": "feather",
    },
}  # fmt: skip


def compression(
    data: str,
    runs: Path,
    labels: str = "",
    origins: tuple[str, ...] = ("feather", "classic", "minilm"),
    epochs: int = 3,
    threads: int = 1,
) -> None:
    """Makes what is not there yet, and writes results/compression-ORIGIN.json.

    Args:
        data: Hub id, folder or file.
        runs: Folder for the runs.
        labels: Label names in id order, where the data does not name its integers.
        origins: Presets, and transformers of the registry, each with seed 0.
        epochs: Most passes of the fine-tuning of a transformer.
        threads: CPU threads of each contender while it is timed.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    source = DataConfig(data=data, labels=labels)
    dataset = load_dataset(source)
    for name in origins:
        is_lstm = name in get_args(Preset)
        if is_lstm:
            origin = lstm(runs, name, source, seed=0)
        else:
            origin = transformer(runs, name, source, 0, epochs)
        # An LSTM's teachers have a table of their own: distillation.py.
        fitting = methods_for(Origin.load(Run(origin), "auto"))
        methods = [it for it in fitting if not (is_lstm and it == "distill")]
        variants = [variant(origin, method, **FLAGS.get(name, {})) for method in methods]
        entrants = [enter(path, "auto") for path in (origin, *variants)]
        record, _ = compare_entrants(CompareConfig(threads=threads), entrants, source)
        del record["command"], record["environment"]  # write_record knows this program's own
        figures = {"comparison": record, "variants": [_record(path) for path in variants]}
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
