"""`compress --target_size`: the LSTM with the best macro-F1 that fits a size limit.

A trial samples a number format and dimensions, uses the largest vocabulary with which its file
fits, and trains with the flags of its origin's `config.json`. Finished trials are recorded, next to
the file of the best one, and each trial depends only on the record: an interrupted search is
resumed and gives the same result as an uninterrupted one.

Source: Akiba et al. (2019), Optuna; Bergstra et al. (2011), Algorithms for Hyper-Parameter
Optimization (TPE, the sampler); Golovin et al. (2017), Google Vizier (the median rule, which stops
trials early).
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compress.config import CompressConfig, parse_size
from compress.lstm.retraining import encoded
from compress.origin import Origin, origin_of
from compress.size_budget import MIN_DIM, Budget, Shape
from compress.variant import refuse_existing, write_variant
from compress.workspace import FOLDER, RESUME, workspace_of
from featherweight.disk.atomic import atomic_open
from featherweight.errors import CheckpointError, UsageError, requires
from featherweight.quality.evaluation import Evaluation
from featherweight.run import CHECKPOINT, CHECKPOINTS, CONFIG, Run
from lstm.classifier import TextClassifier
from lstm.config import TrainConfig
from lstm.fit import fit
from lstm.vectors.embedding import trained_from
from lstm.vectors.vocabulary import vocabulary_vectors

with requires("search"):
    import optuna
    from optuna.pruners import MedianPruner
    from optuna.samplers import TPESampler
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
    from optuna.trial import Trial, TrialState

logger = logging.getLogger("featherweight")

GAIN = "size everywhere"
_RANDOM = 5  # random trials before TPE and the median rule start


def search(config: CompressConfig) -> tuple[Run, list[Evaluation]]:
    """Writes `compressed/target-SIZE` inside the run of an LSTM; it is a run itself.

    Returns:
        The variant's run, and the evaluations of variant and origin on validation.

    Raises:
        KeyboardInterrupt: Ctrl-C; its message has the number of finished trials, the best of which
            is the variant. The same command resumes the search.
        UsageError: It is not an LSTM run, the variant exists already, or the limit is too small.
        WeightsError: The run cannot be loaded.
        DataError: The run's data no longer exists.
    """
    run = origin_of(config)
    target, size_bytes = parse_size(config.target_size)
    name = f"target-{target}"
    resumes = (run.file(FOLDER) / f".{name}").exists()
    refuse_existing(run.file(FOLDER) / name, config.overwrite or resumes)
    origin = Origin.load(run, config.device)
    if not isinstance(origin.classifier, TextClassifier):
        raise UsageError(f"--target_size needs an LSTM run, and {run.path} is not one")
    torch.set_num_threads(1)  # as in `train`
    flags = _training_flags(run, config.seed)
    budget = Budget(size_bytes, origin, flags, name)
    with workspace_of(origin, name, {"seed": config.seed}) as workspace:
        folder = workspace / CHECKPOINTS
        trials = _Trials(_study(folder), folder, origin, flags, budget)
        try:
            trials.run(config.trials)
        except KeyboardInterrupt:
            message = f"{len(trials.finished())} of {config.trials} trials are finished"
            if trials.finished(TrialState.COMPLETE):
                best, _ = trials.write_best(name, config)
                message += f", the best is {best.path}"
            raise KeyboardInterrupt(f"{message}; {RESUME}") from None
        if not trials.finished(TrialState.COMPLETE):
            raise UsageError(
                f"no file of {config.trials} trials was small enough: give more --trials"
            )
        return trials.write_best(name, config)


def _training_flags(origin: Run, seed: int) -> TrainConfig:
    """Returns how a run was trained, with another seed."""
    saved = {**TrainConfig.before, **origin.read_json(CONFIG)}
    names = [field.name for field in fields(TrainConfig) if field.name in saved]
    return replace(TrainConfig(**{name: saved[name] for name in names}), seed=seed)


def _study(folder: Path) -> optuna.Study:
    """Opens the record of the trials, a text file with one JSON object per line."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder.mkdir(exist_ok=True)
    path = folder / "trials.jsonl"
    if path.exists():
        # Drops an incomplete last line: the next record would be appended to it.
        record = path.read_bytes()
        with atomic_open(path, "wb") as file:
            file.write(record[: record.rfind(b"\n") + 1])
    try:
        storage = JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(path, error) from None
    return optuna.create_study(
        storage=storage,
        study_name="search",
        direction="maximize",
        pruner=MedianPruner(n_startup_trials=_RANDOM),
        load_if_exists=True,
    )


def _file(folder: Path, number: int | str) -> Path:
    """Returns the path of the file of a trial."""
    return folder / f"trial-{number}.safetensors"


@dataclass(frozen=True)
class _Trials:
    """The trials of a search; `folder` has their record and the file of the best one."""

    study: optuna.Study
    folder: Path
    origin: Origin
    flags: TrainConfig
    budget: Budget

    def finished(self, *states: TrialState) -> list[optuna.trial.FrozenTrial]:
        """Returns the finished trials, or those in some states; a killed trial is neither."""
        states = states or (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        return self.study.get_trials(deepcopy=False, states=states)

    def run(self, trials: int) -> None:
        """Runs the missing trials; each depends only on those before it."""
        while (number := len(self.finished())) < trials:
            seed = int(np.random.SeedSequence([self.flags.seed, number]).generate_state(1)[0])
            # Without constant_liar: an interrupted trial stays unfinished and must have no effect.
            self.study.sampler = TPESampler(
                n_startup_trials=_RANDOM, seed=seed, constant_liar=False
            )
            if not number:
                self.study.enqueue_trial(self._first())
            outcome = self._run_trial(self.study.ask())
            logger.info("trial %d/%d: %s", number + 1, trials, outcome)

    def _first(self) -> dict[str, Any]:
        """Returns the parameters of the first trial: the origin's dimensions in the fewest bits."""
        flags, budget = self.flags, self.budget
        storage = budget.storages[-1]
        embedding_dim = min(max(flags.embedding_dim, MIN_DIM), budget.max_embedding_dim(storage))
        max_hidden_dim = budget.max_hidden_dim(storage, embedding_dim)
        hidden_dim = min(max(flags.hidden_dim, MIN_DIM), max_hidden_dim)
        return {"storage": storage, "embedding_dim": embedding_dim, "hidden_dim": hidden_dim}

    def _run_trial(self, trial: Trial) -> str:
        """Trains one LSTM, records it and keeps its file if it is the best; returns the outcome."""
        shape = self._suggest(trial)
        classifier = self.budget.untrained(shape)
        checkpoint = self.folder / CHECKPOINT
        checkpoint.unlink(missing_ok=True)  # of an earlier trial

        def after_epoch(record: Mapping[str, Any], epochs: int) -> None:
            trial.report(record["validation_macro_f1"], record["epoch"])
            if trial.should_prune():
                raise optuna.TrialPruned

        train, validation = (
            encoded(classifier.tokenizer, split)
            for split in (self.origin.dataset.train, self.origin.dataset.validation)
        )
        vectors = vocabulary_vectors(
            self.flags.vectors,
            classifier.tokenizer,
            classifier.device,
            self.origin.run.path.parent,
        )
        try:
            with trained_from(classifier.module, vectors):
                fit(
                    classifier.module, train, validation, self.flags, classifier.device, checkpoint,
                    after_epoch=after_epoch,
                )  # fmt: skip
        except optuna.TrialPruned:
            pruned = self.study.tell(trial, state=TrialState.PRUNED)
            return f"stopped after epoch {pruned.last_step}, macro-F1 {pruned.value:.4f} ({shape})"
        return self._record(trial, self.budget.stored(classifier, shape), shape)

    def _record(self, trial: Trial, stored: TextClassifier, shape: Shape) -> str:
        """Records a trained LSTM, and keeps only the best file; returns the outcome."""
        size_bytes = stored.size_bytes()
        if size_bytes > self.budget.size_bytes:
            self.study.tell(trial, state=TrialState.FAIL)
            return f"{size_bytes:,} bytes, too large ({shape})"
        macro_f1 = self.origin.macro_f1(stored)
        stored.save(_file(self.folder, trial.number))
        self.study.tell(trial, macro_f1)
        for path in self.folder.glob(_file(self.folder, "*").name):
            if path != _file(self.folder, self.study.best_trial.number):
                path.unlink()
        return f"{size_bytes:,} bytes, macro-F1 {macro_f1:.4f} ({shape})"

    def _suggest(self, trial: Trial) -> Shape:
        budget = self.budget
        storage = trial.suggest_categorical("storage", budget.storages)
        embedding_dim = trial.suggest_int(
            "embedding_dim", MIN_DIM, budget.max_embedding_dim(storage), log=True
        )
        hidden_dim = trial.suggest_int(
            "hidden_dim", MIN_DIM, budget.max_hidden_dim(storage, embedding_dim), log=True
        )
        vocab_size = budget.max_vocab_size(storage, embedding_dim, hidden_dim)
        trial.set_user_attr("vocab_size", vocab_size)
        return Shape(storage, embedding_dim, hidden_dim, vocab_size)

    def write_best(self, name: str, config: CompressConfig) -> tuple[Run, list[Evaluation]]:
        """Writes the best trial so far as a variant."""
        best, finished = self.study.best_trial, self.finished()
        classifier = TextClassifier.load(
            _file(self.folder, best.number), self.origin.classifier.device
        )
        durations = [trial.duration for trial in finished if trial.duration is not None]
        facts = {
            "gain": GAIN,
            "seconds": sum(durations, timedelta()).total_seconds(),
            "search": {
                "trials": len(finished),
                "pruned": len(self.finished(TrialState.PRUNED)),
                "too_large": len(self.finished(TrialState.FAIL)),
                "best": {**best.params, **best.user_attrs, "macro_f1": best.value},
            },
        }
        run_config = self.origin.run.read_json(CONFIG)
        return write_variant(name, classifier, self.origin, config, facts, run_config)
