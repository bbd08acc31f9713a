"""Several models one after another: one that fails does not stop the rest, and one report."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from accelerate import PartialState

from featherweight.comparison import text
from featherweight.comparison.compare import compare
from featherweight.config import CompareConfig
from featherweight.errors import FeatherweightError, UsageError, first_line
from featherweight.quality.evaluation import Evaluation
from featherweight.reports.reporting import report
from featherweight.run import Run
from transformer_eval.config import FeaturesConfig, FinetuneConfig
from transformer_eval.registry import models

logger = logging.getLogger("featherweight")

Config = TypeVar("Config", FinetuneConfig, FeaturesConfig)
Made = tuple[Run, list[Evaluation]] | None  # None in a process that only helps another


def train_each(config: Config, make: Callable[[Config, str], Made]) -> None:
    """Makes a run of each model and prints what came of it.

    Args:
        config: Its `model` names the models; with several, `name` begins the name of each run.
        make: Makes the run of one model, and evaluates it on validation.

    Raises:
        FeatherweightError: A model failed; of several, after the others were made.
        UsageError: Runs of several models cannot be told apart by their names.
    """
    chosen = models(config.model, fine_tuned=False)
    if len(chosen) == 1:
        _one(config, chosen[0], make)
    else:
        _several(config, chosen, make)


def _one(config: Config, model: str, make: Callable[[Config, str], Made]) -> None:
    made = make(replace(config, model=[model]), model)
    if made:
        run, (evaluation, *others) = made
        print(report(evaluation, others))
        print(f"\nrun: {run.path}")


def _several(config: Config, chosen: Sequence[str], make: Callable[[Config, str], Made]) -> None:
    if config.resume and not config.name:
        raise UsageError("--resume of several models needs the --name that they were begun with")
    started = config.name or f"models-{time.strftime('%Y%m%d-%H%M%S')}"
    names = [f"{started}-{Path(model).resolve().name}" for model in chosen]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UsageError(f"--model: two of them would leave {twice[0]}; take them one at a time")
    runs: list[Run] = []
    failures: list[str] = []
    for model, name in zip(chosen, names, strict=True):
        finished = Run(config.output_dir / name)
        if config.resume and finished.finished:
            runs.append(finished)
            continue
        try:
            made = make(replace(config, model=[model], name=name), model)
        except (FeatherweightError, RuntimeError, ValueError, OSError) as error:
            # Whatever it is, memory that runs out for one: the others may still succeed.
            reason = first_line(error)
            logger.error("%s failed: %s", model, reason)
            failures.append(f"{model} ({reason})")
        else:
            runs += [made[0]] if made else []
    if not PartialState().is_main_process:
        return  # failing now would end the first process amid its report
    if runs:
        _report(config.output_dir / f"{started}-report", runs)
    if failures:
        raise FeatherweightError(f"{len(failures)} of {len(chosen)} failed: {'; '.join(failures)}")


def _report(path: Path, runs: Sequence[Run]) -> None:
    """Compares the runs on the test split, or on validation where there is none."""
    tested = "test" in runs[0].read_json("data.json")["splits"]
    record = compare(
        CompareConfig(
            weights=[run.path for run in runs],
            split="test" if tested else "validation",
            output_path=path,
        )
    )
    print(text.terminal(record))
    print(f"\nreport: {path}")
