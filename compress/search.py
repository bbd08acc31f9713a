"""`compress --target_size`: the LSTM of the best macro-F1 that fits a budget of bytes.

A trial is given a format and dimensions, takes the largest vocabulary with which its file fits, and
is trained with the numbers of its origin's `config.json`. Trials are recorded as they end, with the
file of the best beside the record, and each is suggested by the record alone: a search that was cut
off goes on, and ends as it would have ended.

Source: Akiba et al. (2019), Optuna; Bergstra et al. (2011), Algorithms for Hyper-Parameter
Optimization (TPE, which suggests); Golovin et al. (2017), Google Vizier (the median rule, by which
trials that fall behind are given up).
"""

import logging
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compress.config import CompressConfig, target_of
from compress.lstm.retraining import encoded
from compress.origin import Origin, origin_of
from compress.size_budget import NARROWEST, Budget, Shape
from compress.variant import refuse_existing, write_variant
from compress.workspace import FOLDER, GO_ON, workspace_of
from featherweight.data.dataset import Dataset
from featherweight.errors import UsageError, WeightsError, requires
from featherweight.quality.evaluation import Evaluation, validation_scores
from featherweight.run import CHECKPOINT, CHECKPOINTS, CONFIG, Run, atomic_open
from lstm.classifier import TextClassifier
from lstm.config import TrainConfig
from lstm.fit import fit

with requires("search"):
    import optuna
    from optuna.pruners import MedianPruner
    from optuna.samplers import TPESampler
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
    from optuna.trial import Trial, TrialState

logger = logging.getLogger("featherweight")

GAIN = "size everywhere"
_RANDOM = 5  # trials before TPE suggests, and before the median rule ends any


def search(config: CompressConfig) -> tuple[Run, list[Evaluation]]:
    """Writes `compressed/target-SIZE` inside the run of an LSTM, a run itself.

    Returns:
        The variant's run, and the evaluations of variant and origin on validation.

    Raises:
        KeyboardInterrupt: Ctrl-C; it says how many trials were done, the best of which is the
            variant. The same command goes on.
        UsageError: No LSTM run, the variant is there already, or the size cannot be met.
        WeightsError: The run cannot be loaded.
        DataError: The run's data has gone.
    """
    run = origin_of(config)
    target, size_bytes = target_of(config.target_size)
    name = f"target-{target}"
    cut_off = run.file(FOLDER) / f".{name}"
    refuse_existing(run.file(FOLDER) / name, config.overwrite or cut_off.exists())
    origin = Origin.load(run, config.device)
    if not isinstance(origin.classifier, TextClassifier):
        raise UsageError(f"--target_size searches LSTMs, {run.path} is none: give an LSTM run")
    torch.set_num_threads(1)  # as in `train`
    flags = _training_flags(run, config.seed)
    budget = Budget(size_bytes, origin.classifier, flags, origin.dataset, name)
    with workspace_of(origin, name, {"seed": config.seed}) as workspace:
        folder = workspace / CHECKPOINTS
        study = _study(folder)
        try:
            _run_trials(study, budget, flags, origin.dataset, folder, config.trials)
        except KeyboardInterrupt:
            said = f"{len(_finished(study))} of {config.trials} trials are done"
            if _finished(study, TrialState.COMPLETE):
                best, _ = _write_best(name, study, folder, origin, config)
                said += f", the best of them is {best.path}"
            raise KeyboardInterrupt(f"{said}; {GO_ON}") from None
        if not _finished(study, TrialState.COMPLETE):
            raise UsageError(
                f"no file of {config.trials} trials was small enough: give more --trials"
            )
        return _write_best(name, study, folder, origin, config)


def _write_best(
    name: str, study: optuna.Study, folder: Path, origin: Origin, config: CompressConfig
) -> tuple[Run, list[Evaluation]]:
    """Makes the best trial so far the variant."""
    file = _file(folder, study.best_trial.number)
    best = TextClassifier.load(file, origin.classifier.device)
    return write_variant(name, best, origin, config, {"gain": GAIN, **_facts(study)})


def _training_flags(origin: Run, seed: int) -> TrainConfig:
    """Returns how a run was trained, under another seed."""
    saved = origin.read_json(CONFIG)
    known = {it.name: saved[it.name] for it in fields(TrainConfig) if it.name in saved}
    return replace(TrainConfig(**known), seed=seed)


def _study(folder: Path) -> optuna.Study:
    """Opens the record of the trials, a text file of one JSON object a line.

    Raises:
        WeightsError: It is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder.mkdir(exist_ok=True)
    path = folder / "trials.jsonl"
    if path.exists():
        # A line that a kill cut short would be joined to the next one.
        record = path.read_bytes()
        with atomic_open(path, "wb") as file:
            file.write(record[: record.rfind(b"\n") + 1])
    try:
        storage = JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} is damaged: {error}") from None
    return optuna.create_study(
        storage=storage,
        study_name="search",
        direction="maximize",
        pruner=MedianPruner(n_startup_trials=_RANDOM),
        load_if_exists=True,
    )


def _finished(study: optuna.Study, *states: TrialState) -> list[optuna.trial.FrozenTrial]:
    """Returns the trials that came to an end, or those in some states; a killed one has no end."""
    ended = states or (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    return study.get_trials(deepcopy=False, states=ended)


def _run_trials(
    study: optuna.Study,
    budget: Budget,
    flags: TrainConfig,
    dataset: Dataset,
    folder: Path,
    trials: int,
) -> None:
    """Runs the trials that are missing; each depends on those before it, and on nothing else."""
    while (done := len(_finished(study))) < trials:
        seed = int(np.random.SeedSequence([flags.seed, done]).generate_state(1)[0])
        study.sampler = TPESampler(n_startup_trials=_RANDOM, seed=seed)
        if not done:
            study.enqueue_trial(_first(budget, flags))
        outcome = _run_trial(study, study.ask(), budget, flags, dataset, folder)
        logger.info("trial %d/%d: %s", done + 1, trials, outcome)


def _first(budget: Budget, flags: TrainConfig) -> dict[str, Any]:
    """Returns the parameters of the first trial: the origin's dimensions, in the fewest bits."""
    storage = budget.storages[-1]
    embedding_dim = min(max(flags.embedding_dim, NARROWEST), budget.widest_embedding(storage))
    hidden_dim = min(max(flags.hidden_dim, NARROWEST), budget.widest_hidden(storage, embedding_dim))
    return {"storage": storage, "embedding_dim": embedding_dim, "hidden_dim": hidden_dim}


def _run_trial(
    study: optuna.Study,
    trial: Trial,
    budget: Budget,
    flags: TrainConfig,
    dataset: Dataset,
    folder: Path,
) -> str:
    """Trains one LSTM, records it, keeps its file if it is the best; says what became of it."""
    shape = _suggested(trial, budget)
    classifier = budget.untrained(shape)
    (folder / CHECKPOINT).unlink(missing_ok=True)  # that of another trial

    def after_epoch(record: Mapping[str, Any], epochs: int) -> None:
        trial.report(record["validation_macro_f1"], record["epoch"])
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        fit(
            classifier.module,
            encoded(classifier, dataset.train.texts, dataset.train.labels),
            encoded(classifier, dataset.validation.texts, dataset.validation.labels),
            flags,
            classifier.device,
            folder / CHECKPOINT,
            after_epoch=after_epoch,
        )
    except optuna.TrialPruned:
        pruned = study.tell(trial, state=TrialState.PRUNED)
        return f"macro-F1 {pruned.value:.4f} after epoch {pruned.last_step}, given up ({shape})"
    stored = budget.stored(classifier, shape)
    size_bytes = stored.size_bytes()
    if size_bytes > budget.size_bytes:
        study.tell(trial, state=TrialState.FAIL)
        return f"{size_bytes:,} bytes, too large ({shape})"
    logits = stored.logits(dataset.validation.texts)
    macro_f1 = validation_scores(dataset.validation.labels, logits)["validation_macro_f1"]
    stored.save(_file(folder, trial.number))
    study.tell(trial, macro_f1)
    for path in folder.glob(_file(folder, "*").name):
        if path != _file(folder, study.best_trial.number):
            path.unlink()
    return f"{size_bytes:,} bytes, macro-F1 {macro_f1:.4f} ({shape})"


def _suggested(trial: Trial, budget: Budget) -> Shape:
    storage = trial.suggest_categorical("storage", budget.storages)
    embedding_dim = trial.suggest_int(
        "embedding_dim", NARROWEST, budget.widest_embedding(storage), log=True
    )
    hidden_dim = trial.suggest_int(
        "hidden_dim", NARROWEST, budget.widest_hidden(storage, embedding_dim), log=True
    )
    vocab_size = budget.largest_vocabulary(storage, embedding_dim, hidden_dim)
    trial.set_user_attr("vocab_size", vocab_size)
    return Shape(storage, embedding_dim, hidden_dim, vocab_size)


def _file(folder: Path, number: int | str) -> Path:
    """Returns where the file of a trial is kept."""
    return folder / f"trial-{number}.safetensors"


def _facts(study: optuna.Study) -> dict[str, Any]:
    """Returns what `compression.json` says about a search."""
    best, ended = study.best_trial, _finished(study)
    durations = [it.duration for it in ended if it.duration is not None]
    return {
        "seconds": sum(durations, timedelta()).total_seconds(),
        "search": {
            "trials": len(ended),
            "pruned": len(_finished(study, TrialState.PRUNED)),
            "too_large": len(_finished(study, TrialState.FAIL)),
            "best": {**best.params, **best.user_attrs, "macro_f1": best.value},
        },
    }
