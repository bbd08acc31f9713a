"""Runs `finetune` or `features` for several models in sequence, with one report at the end."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

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
Result = tuple[Run, list[Evaluation]] | None  # None in all processes except the first


def run_models(config: Config, run_model: Callable[[Config, str], Result]) -> None:
    """Creates a run for each model and prints the results.

    A model that fails does not stop the others.

    Args:
        config: `model` lists the models; with several, `name` is the prefix of the run names.
        run_model: Creates the run of one model and evaluates it on validation.

    Raises:
        FeatherweightError: A model failed; with several, it is raised after the last one.
        UsageError: The runs of several models would have the same name.
    """
    chosen = models(config.model, fine_tuned=False)
    if len(chosen) > 1:
        _run_several(config, chosen, run_model)
        return
    result = run_model(replace(config, model=chosen), chosen[0])
    if result:
        run, (evaluation, *others) = result
        print(report(evaluation, others))
        print(f"\nrun: {run.path}")


def _run_several(
    config: Config, chosen: Sequence[str], run_model: Callable[[Config, str], Result]
) -> None:
    if config.resume and not config.name:
        raise UsageError("--resume with several models needs the --name of the first call")
    prefix = config.name or f"models-{time.strftime('%Y%m%d-%H%M%S')}"
    runs: list[Run] = []
    failures: list[str] = []
    for model, name in zip(chosen, _run_names(prefix, chosen), strict=True):
        existing = Run(config.output_dir / name)
        if config.resume and existing.finished:
            runs.append(existing)
            continue
        try:
            result = run_model(replace(config, model=[model], name=name), model)
        except (FeatherweightError, RuntimeError, ValueError, OSError) as error:
            # For example out of memory: smaller models may still succeed.
            reason = first_line(error)
            logger.error("%s failed: %s", model, reason)
            failures.append(f"{model} ({reason})")
        else:
            runs += [result[0]] if result else []
    if not PartialState().is_main_process:
        return  # a failure here would end the first process before its report
    if runs:
        _report(config.output_dir / f"{prefix}-report", runs)
    if failures:
        raise FeatherweightError(f"{len(failures)} of {len(chosen)} failed: {'; '.join(failures)}")


def _run_names(prefix: str, chosen: Sequence[str]) -> list[str]:
    names = [f"{prefix}-{Path(model).resolve().name}" for model in chosen]
    duplicates = [name for name in names if names.count(name) > 1]
    if duplicates:
        raise UsageError(
            f"--model: two models would create the run {duplicates[0]}: train them separately"
        )
    return names


def _report(path: Path, runs: Sequence[Run]) -> None:
    """Compares the runs on the test split, or on validation if there is no test split."""
    split: Literal["test", "validation"] = (
        "test" if "test" in runs[0].read_json("data.json")["splits"] else "validation"
    )
    weights = [run.path for run in runs]
    record = compare(CompareConfig(weights=weights, split=split, output_path=path))
    print(text.terminal(record))
    print(f"\nreport: {path}")
