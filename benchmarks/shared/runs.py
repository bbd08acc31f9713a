"""Runs that several benchmarks use: created once in a folder, then reused."""

from pathlib import Path
from typing import Any

from compress.config import CompressConfig
from compress.variant import FOLDER, compress_run
from featherweight.data.dataset import DataConfig
from featherweight.run import COMPRESSION, Run
from lstm.config import Preset, preset
from lstm.train import train
from transformer_eval.config import FeaturesConfig, FinetuneConfig
from transformer_eval.features import features
from transformer_eval.finetune import finetune


def lstm(
    runs: Path, name: Preset, source: DataConfig, seed: int, run_name: str = "", **flags: Any
) -> Path:
    """Returns the run of a preset with a seed; other flags need a run name of their own."""
    run = Run(runs / (run_name or f"{name}-{seed}"))
    if not run.finished:
        train(preset(name, seed=seed, **_flags(run, source), **flags))
    return run.path


def transformer(runs: Path, model: str, source: DataConfig, seed: int, epochs: int) -> Path:
    """Returns the run of a fine-tuned transformer."""
    run = Run(runs / f"{model}-{seed}")
    if not run.finished:
        flags = _flags(run, source)
        finetune(FinetuneConfig(model=[model], seed=seed, epochs=epochs, **flags), model)
    return run.path


def frozen(runs: Path, model: str, source: DataConfig) -> Path:
    """Returns the run of a logistic regression on a frozen transformer."""
    run = Run(runs / f"{model}-frozen")
    if not run.finished:
        cache = runs / ".embeddings"
        features(FeaturesConfig(model=[model], cache_dir=cache, **_flags(run, source)), model)
    return run.path


def variant(origin: Path, method: Any, **flags: Any) -> Path:
    """Returns the variant of a run that a method makes."""
    path = origin / FOLDER / method
    if not (path / COMPRESSION).is_file():
        config = CompressConfig(weights=origin, method=method, overwrite=path.exists(), **flags)
        compress_run(config)
    return path


def _flags(run: Run, source: DataConfig) -> dict[str, Any]:
    return {
        "data": source.data,
        "labels": source.labels,
        "name": run.path.name,
        "output_dir": run.path.parent,
        "overwrite": run.path.exists(),
    }
