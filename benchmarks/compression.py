"""Compares all compression methods on LSTMs and a fine-tuned transformer, on the test split.

The variants are accepted or rejected on validation when they are made. Finished runs in the folder
are reused.

$ python benchmarks/compression.py --data dair-ai/emotion --runs outputs/versus
"""

from pathlib import Path
from typing import Any, get_args

from shared.record import run, write_comparison
from shared.runs import lstm, transformer, variant

from compress.origin import Origin
from compress.variant import methods_for
from featherweight.comparison.compare import compare_entrants
from featherweight.comparison.entrants import enter
from featherweight.config import CompareConfig
from featherweight.data.dataset import DataConfig, load_dataset
from featherweight.run import COMPRESSION, Run
from lstm.config import Preset

# Chosen on validation. A transformer is retrained for one epoch, because an epoch takes minutes.
FLAGS: dict[str, dict[str, Any]] = {
    "feather": {"sparsity": 0.5, "vocabulary": 0.5, "hidden": 0.5},
    "classic": {"sparsity": 0.5, "vocabulary": 0.5},
    "minilm": {
        "sparsity": 0.3, "vocabulary": 0.5, "retraining_epochs": 1, "student": "feather",
    },
}  # fmt: skip


def compression(
    source: DataConfig,
    runs: Path,
    origins: tuple[str, ...] = ("feather", "classic", "minilm"),
    epochs: int = 3,
    threads: int = 1,
) -> None:
    """Creates missing runs and writes results/compression-ORIGIN.json and its picture.

    Args:
        source: The data set.
        runs: Folder of the runs.
        origins: Presets, and transformers of the registry, each with seed 0.
        epochs: Maximum number of epochs when a transformer is fine-tuned.
        threads: CPU threads of each model while it is timed.
    """
    dataset = load_dataset(source)
    for name in origins:
        is_lstm = name in get_args(Preset)
        if is_lstm:
            origin = lstm(runs, name, source, seed=0)
        else:
            origin = transformer(runs, name, source, 0, epochs)
        methods = [
            method
            for method in methods_for(Origin.load(Run(origin), "auto"))
            if not (is_lstm and method == "distill")  # distillation.py measures it
        ]
        variants = [variant(origin, method, **FLAGS.get(name, {})) for method in methods]
        entrants = [enter(path, "auto") for path in (origin, *variants)]
        record, _ = compare_entrants(CompareConfig(threads=threads), entrants, source)
        facts = [Run(path).read_json(COMPRESSION) for path in variants]
        for fact in facts:
            del fact["flags"]  # local paths
        write_comparison(
            f"compression-{name}", f"compression_{name}", dataset, record, variants=facts
        )


if __name__ == "__main__":
    run(compression)
