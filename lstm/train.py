"""`train`: trains an LSTM and writes its run directory."""

import json
import logging
import time
from typing import Any

import torch
from tokenizers import Tokenizer

from featherweight.data.dataset import Split
from featherweight.device import resolve_device, seed_everything
from featherweight.errors import WeightsError
from featherweight.quality.evaluation import Evaluation, evaluate
from featherweight.reports.reporting import draw_evaluation, draw_training, write_evaluation
from featherweight.run import CHECKPOINT, MODEL, TOKENIZER, Run
from featherweight.training.run_records import first_records, logged_to, prepare_data, written_run
from lstm.classifier import TextClassifier, model_config
from lstm.config import TokenizerConfig, TrainConfig
from lstm.encoder import LSTMClassifier
from lstm.fit import EncodedSplit, check_precision, fit
from lstm.tokenizer import UNK_ID, load_tokenizer, token_ids, train_tokenizer
from lstm.vectors.embedding import trained_from
from lstm.vectors.vocabulary import log_coverage, vocabulary_vectors

logger = logging.getLogger("featherweight")

_MAX_UNKNOWN = 0.3  # share of the validation tokens; above, the model hardly sees the texts


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
    name = config.name or f"{config.preset}-{dataset.name}-{time.strftime('%Y%m%d-%H%M%S')}"

    def new_records() -> dict[str, Any]:
        tokenizer = train_tokenizer(dataset.train.texts, config)
        records = first_records(config, dataset, findings)
        return records | {TOKENIZER: json.loads(tokenizer.to_str())}

    with (
        written_run(config, dataset, name, new_records) as run,
        logged_to(run.file("training.log")),
    ):
        size = len(dataset.train)
        logger.info("%s on %s: %d training texts, %s", run.final, dataset.name, size, device)
        tokenizer = _saved_tokenizer(run)
        seed_everything(config.seed)
        architecture = model_config(config)
        module = LSTMClassifier(tokenizer.get_vocab_size(), len(dataset.labels), architecture)
        train_ids, _ = _encode(tokenizer, dataset.train)
        validation_ids, unknown = _encode(tokenizer, dataset.validation)
        if unknown > _MAX_UNKNOWN:
            logger.warning("%s", _too_many_unknown(unknown, config))
        vectors = vocabulary_vectors(config.vectors, tokenizer, device, config.output_dir)
        if vectors is not None:
            log_coverage(config.vectors, vectors, train_ids.ids)
        with trained_from(module, vectors):
            progress = fit(module, train_ids, validation_ids, config, device, run.file(CHECKPOINT))
        classifier = TextClassifier(
            run.final.name, dataset.labels, tokenizer, module, architecture, device
        )
        classifier.save(run.file(MODEL))
        run.write_text("history.jsonl", "".join(json.dumps(r) + "\n" for r in progress.history))
        evaluation = evaluate(classifier, dataset.validation, dataset.name)
        write_evaluation(run, evaluation, dataset.validation.texts)
        run.file(CHECKPOINT).unlink(missing_ok=True)
        logger.info("finished: %s", run.final)
    draw_training(run, progress.history)
    draw_evaluation(run, evaluation)
    return run, evaluation


def _saved_tokenizer(run: Run) -> Tokenizer:
    try:
        return load_tokenizer(json.dumps(run.read_json(TOKENIZER)))
    except ValueError as error:
        path = run.file(TOKENIZER)
        raise WeightsError(f"{path}: {error}; train again with --overwrite") from None


def _encode(tokenizer: Tokenizer, split: Split) -> tuple[EncodedSplit, float]:
    """Returns the token ids of a split, and the share of them that are unknown, in [0, 1]."""
    ids, truncated = token_ids(tokenizer, split.texts)
    tokens = sum(map(len, ids))
    unknown = sum(row.count(UNK_ID) for row in ids) / tokens
    logger.info(
        "%s: %d texts, %d tokens, %.1f %% unknown, %d texts truncated",
        split.name, len(ids), tokens, 100 * unknown, truncated,
    )  # fmt: skip
    return EncodedSplit(ids, split.labels), unknown


def _too_many_unknown(share: float, config: TokenizerConfig) -> str:
    ways = ["more training texts, or texts like those of validation"]
    if config.min_frequency > 1:
        ways.insert(0, "--min_frequency 1")
    if config.tokenizer == "word":
        ways.insert(0, "--tokenizer bpe")
    return f"{share:.0%} of the validation tokens are unknown to the model: try {', '.join(ways)}"
