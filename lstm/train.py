"""`train`: trains an LSTM and writes its run directory."""

import json
import logging
import time

import torch
from tokenizers import Tokenizer

from featherweight.data.checks import Findings
from featherweight.data.dataset import Dataset, Split
from featherweight.device import resolve_device, seed_everything
from featherweight.errors import WeightsError
from featherweight.quality.evaluation import Evaluation, evaluate
from featherweight.reports.reporting import draw_evaluation, draw_training, write_evaluation
from featherweight.run import CHECKPOINT, MODEL, TOKENIZER, Run
from featherweight.training.run_records import cut_off_run, first_records, logged_to, prepare_data
from lstm.classifier import TextClassifier, model_config
from lstm.config import TrainConfig
from lstm.encoder import LSTMClassifier
from lstm.fit import EncodedSplit, check_precision, fit
from lstm.tokenizer import UNK_ID, load_tokenizer, token_ids, train_tokenizer

logger = logging.getLogger("featherweight")


def train(config: TrainConfig) -> tuple[Run, Evaluation]:
    """Trains an LSTM and writes a run directory.

    Returns:
        The run, and its evaluation on the validation split.

    Raises:
        DataError: The data is not usable.
        UsageError: The flags do not match the machine, the data or an existing run.
        WeightsError: The run to resume is damaged.
    """
    # The matrices are too small for more threads, and one thread makes sums reproducible.
    torch.set_num_threads(1)
    device = resolve_device(config.device)
    check_precision(config, device)
    dataset, findings = prepare_data(config)
    run = cut_off_run(config, dataset) if config.resume else None
    if run is None:
        run = _new_run(config, dataset, findings)
    with logged_to(run.file("training.log")):
        size = len(dataset.train)
        logger.info("%s on %s: %d training texts, %s", run.path, dataset.name, size, device)
        tokenizer = _saved_tokenizer(run)
        seed_everything(config.seed)
        architecture = model_config(config)
        module = LSTMClassifier(tokenizer.get_vocab_size(), len(dataset.labels), architecture)
        train_ids, validation_ids = (_encode(tokenizer, split) for split in dataset.splits[:2])
        progress = fit(module, train_ids, validation_ids, config, device, run.file(CHECKPOINT))
        classifier = TextClassifier(
            run.path.name, dataset.labels, tokenizer, module, architecture, device
        )
        classifier.save(run.file(MODEL))
        run.write_text("history.jsonl", "".join(json.dumps(r) + "\n" for r in progress.history))
        evaluation = evaluate(classifier, dataset.validation, dataset.name)
        write_evaluation(run, evaluation, dataset.validation.texts)
        run.file(CHECKPOINT).unlink(missing_ok=True)
        logger.info("finished: %s", run.path)
        draw_training(run, progress.history)
        draw_evaluation(run, evaluation)
    return run, evaluation


def _new_run(config: TrainConfig, dataset: Dataset, findings: Findings) -> Run:
    name = config.name or f"{config.preset}-{dataset.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    # Before the run is created, so that an error leaves nothing behind.
    tokenizer = train_tokenizer(dataset.train.texts, config)
    records = first_records(config, dataset, findings)
    records[TOKENIZER] = json.loads(tokenizer.to_str())
    return Run.create(config.output_dir, name, config.overwrite, records)


def _saved_tokenizer(run: Run) -> Tokenizer:
    try:
        return load_tokenizer(json.dumps(run.read_json(TOKENIZER)))
    except ValueError as error:
        path = run.file(TOKENIZER)
        raise WeightsError(f"{path}: {error}; train again with --overwrite") from None


def _encode(tokenizer: Tokenizer, split: Split) -> EncodedSplit:
    ids, truncated = token_ids(tokenizer, split.texts)
    tokens = sum(map(len, ids))
    unknown = sum(row.count(UNK_ID) for row in ids)
    logger.info(
        "%s: %d texts, %d tokens, %.1f %% unknown, %d texts truncated",
        split.name, len(ids), tokens, 100 * unknown / tokens, truncated,
    )  # fmt: skip
    return EncodedSplit(ids, split.labels)
