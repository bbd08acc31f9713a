"""`train`: data, tokenizer, fit, run directory, from flags to a finished run."""

import dataclasses
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from featherweight.checks import Findings, check, drop_leaks
from featherweight.dataset import Dataset, Split, load_dataset
from featherweight.device import environment, resolve_device, seed_everything
from featherweight.errors import UsageError, WeightsError
from featherweight.evaluation import Evaluation, evaluate
from featherweight.plots import training_curves
from featherweight.reporting import write_evaluation
from featherweight.run import CHECKPOINT, CONFIG, MODEL, TOKENIZER, Run, runs
from lstm.classifier import TextClassifier, model_config
from lstm.config import OutputConfig, TrainConfig
from lstm.encoder import LSTMClassifier
from lstm.tokenizer import UNK_ID, load_tokenizer, token_ids, train_tokenizer
from lstm.training import EncodedSplit, check_precision, fit

logger = logging.getLogger("featherweight")


def train(config: TrainConfig) -> tuple[Run, Evaluation]:
    """Trains an LSTM and leaves a run directory.

    Returns:
        The run, and its evaluation on the validation split.

    Raises:
        DataError: The data cannot be used.
        UsageError: The flags do not fit the machine, the data or an existing run.
        WeightsError: The run to resume is damaged.
    """
    # The matrices are too small to share; and one thread adds up in one order on any machine.
    torch.set_num_threads(1)
    device = resolve_device(config.device)
    check_precision(config, device)
    dataset = load_dataset(config)
    findings = check(dataset)
    for line in findings.lines():
        logger.warning("%s", line)
    if config.drop_leaks:
        dataset, dropped = drop_leaks(dataset)
        logger.info("%d texts were dropped from train", dropped)
    run = _resumed_run(config, dataset) if config.resume else None
    if run is None:
        run = _new_run(config, dataset, findings)
    with _logged_to(run.file("training.log")):
        logger.info("%s on %s: %d training texts, %s", run.path, dataset.name,
                    len(dataset.train), device)  # fmt: skip
        tokenizer = _saved_tokenizer(run)
        seed_everything(config.seed)
        architecture = model_config(config)
        module = LSTMClassifier(tokenizer.get_vocab_size(), len(dataset.labels), architecture)
        progress = fit(
            module,
            _encode(tokenizer, dataset.train),
            _encode(tokenizer, dataset.validation),
            config,
            device,
            run.file(CHECKPOINT),
        )
        classifier = TextClassifier(
            run.path.name, dataset.labels, tokenizer, module, architecture, device
        )
        classifier.save(run.file(MODEL))
        run.write_text("history.jsonl", "".join(json.dumps(r) + "\n" for r in progress.history))
        run.write_bytes("training_curves.png", training_curves(progress.history))
        evaluation = evaluate(classifier, dataset.validation, dataset.name)
        write_evaluation(run, evaluation, dataset.validation.texts)
        run.file(CHECKPOINT).unlink(missing_ok=True)
        logger.info("finished: %s", run.path)
    return run, evaluation


def _new_run(config: TrainConfig, dataset: Dataset, findings: Findings) -> Run:
    name = config.name or f"{config.preset}-{dataset.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    # Before there is a run: whatever can go wrong leaves nothing behind.
    tokenizer = train_tokenizer(dataset.train.texts, config)
    records = {
        CONFIG: _resolved(config),
        TOKENIZER: json.loads(tokenizer.to_str()),
        "labels.json": dataset.labels,
        "data.json": dataset.identity() | {"findings": findings.to_json()},
        "environment.json": environment(),
    }
    return Run.create(config.output_dir, name, config.overwrite, records)


def _resumed_run(config: TrainConfig, dataset: Dataset) -> Run | None:
    """Finds the run that was cut off, or None where it was cut off before there was one.

    Raises:
        UsageError: Nothing to resume, or other flags or data than then.
    """
    if config.name:
        named = Run(config.output_dir / config.name)
        if not named.file(CONFIG).exists():
            return None
        if named.finished:
            raise UsageError(f"{named.path} is finished: nothing to resume")
        run = named
    else:
        cut_off = [run for run in runs(config.output_dir) if not run.finished]
        if not cut_off:
            raise UsageError(f"no run in {config.output_dir} was cut off: nothing to resume")
        run = cut_off[-1]
    saved, now = run.read_json(CONFIG), _resolved(config)
    for field in now.keys() - {field.name for field in dataclasses.fields(OutputConfig)}:
        if saved.get(field) != now[field]:
            raise UsageError(
                f"{run.path} was started with --{field} {saved.get(field)}, not {now[field]}: "
                "resume with the same flags"
            )
    if run.read_json("data.json")["splits"] != dataset.identity()["splits"]:
        raise UsageError(f"the data of {run.path} has changed: train anew under another --name")
    return run


def _resolved(config: TrainConfig) -> dict[str, Any]:
    """Every field as JSON; paths absolute, so that the data is found from anywhere."""
    values = dataclasses.asdict(config)
    if Path(config.data).exists():
        values["data"] = str(Path(config.data).resolve())
    return {
        name: str(value.resolve()) if isinstance(value, Path) else value
        for name, value in values.items()
    }


def _saved_tokenizer(run: Run) -> Tokenizer:
    try:
        return load_tokenizer(json.dumps(run.read_json(TOKENIZER)))
    except ValueError as error:
        path = run.file(TOKENIZER)
        raise WeightsError(f"{path}: {error}: train anew with --overwrite") from None


def _encode(tokenizer: Tokenizer, split: Split) -> EncodedSplit:
    ids, truncated = token_ids(tokenizer, split.texts)
    tokens = sum(map(len, ids))
    unknown = sum(row.count(UNK_ID) for row in ids)
    logger.info(
        "%s: %d texts, %d tokens, %.1f %% unknown, %d texts cut at the maximum length",
        split.name, len(ids), tokens, 100 * unknown / tokens, truncated,
    )  # fmt: skip
    return EncodedSplit(ids, split.labels)


@contextmanager
def _logged_to(path: Path) -> Iterator[None]:
    """Copies the log into a file, going on where a cut-off training left it."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
