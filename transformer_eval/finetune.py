"""`finetune`: any BERT-family model on the splits, the metric and the run directory of the LSTM."""

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import AutoModelForSequenceClassification

from featherweight.data.checks import Findings
from featherweight.data.dataset import Dataset
from featherweight.device import resolve_device, seed_everything
from featherweight.errors import FeatherweightError, UsageError
from featherweight.quality.evaluation import Evaluation, evaluate
from featherweight.reports.plots import training_curves
from featherweight.reports.reporting import write_evaluation
from featherweight.run import CHECKPOINTS, TRANSFORMER, Run, atomic_directory
from featherweight.training.run_records import cut_off_run, first_records, logged_to, prepare_data
from transformer_eval.classifier import (
    NORMALIZER,
    TransformerClassifier,
    load_model,
    load_tokenizer,
    max_length,
)
from transformer_eval.config import FinetuneConfig
from transformer_eval.fit import fit, precision
from transformer_eval.model_files import Files, fetch
from transformer_eval.safe_trainer import read_history

logger = logging.getLogger("featherweight")

LEARNING_RATE = 2e-5  # of a model that the registry does not know


def finetune(config: FinetuneConfig, model: str) -> tuple[Run, list[Evaluation]] | None:
    """Fine-tunes one model and leaves a run directory.

    Under `accelerate launch` every process calls this; the first one alone writes and reports.

    Args:
        config: Data and numbers of the training.
        model: Registry name, Hub id or folder.

    Returns:
        The run, and a list of its one evaluation on the validation split; None in every process
        but the first.

    Raises:
        DataError: The data cannot be used.
        UsageError: The flags do not fit the machine, the model or an existing run.
        WeightsError: The model cannot be had, or the run to resume is damaged.
    """
    device = resolve_device(config.device)
    number_format = precision(config, device)
    state = PartialState(cpu=device == "cpu")
    if not state.is_main_process:
        logger.setLevel(logging.ERROR)
    with _first_process_first(state):
        files = fetch(model)
        dataset, findings = prepare_data(config)
        # Before there is a run: a model that cannot be used leaves nothing behind.
        tokenizer, network = tokenizer_and_model(config, files, dataset)
        own = _run(config, files, dataset, findings) if state.is_main_process else None
    run = Run(Path(broadcast_object_list([str(own.path) if own else ""])[0]))
    with _logged(state, run):
        logger.info("%s on %s: %d training texts, %s in %s, %d process(es)", files.name,
                    dataset.name, len(dataset.train), device, number_format,
                    state.num_processes)  # fmt: skip
        trainer = fit(network, tokenizer, dataset, with_rate(config, files), run, device)
        if not state.is_main_process:
            return None
        with atomic_directory(run.file(TRANSFORMER)) as folder:
            trainer.model.save_pretrained(folder)
            trainer.processing_class.save_pretrained(folder)
        run.write_bytes("training_curves.png", training_curves(read_history(run)))
        classifier = TransformerClassifier.load(run.file(TRANSFORMER), device, run.path.name)
        evaluation = evaluate(classifier, dataset.validation, dataset.name)
        write_evaluation(run, evaluation, dataset.validation.texts)
        # In one step: a kill among many deletions would leave a checkpoint that lacks files.
        leftover = run.file(CHECKPOINTS).rename(run.file(f".{CHECKPOINTS}"))
        shutil.rmtree(leftover, ignore_errors=True)
        logger.info("finished: %s", run.path)
    return run, [evaluation]


def _run(config: FinetuneConfig, files: Files, dataset: Dataset, findings: Findings) -> Run:
    run = cut_off_run(config, dataset) if config.resume else None
    if run is None:
        name = config.name or f"{files.name}-{dataset.name}-{time.strftime('%Y%m%d-%H%M%S')}"
        if (config.output_dir / name).resolve() in files.folder.resolve().parents:
            raise UsageError(f"--overwrite would delete {files.folder}, which --model names")
        records = first_records(config, dataset, findings)
        run = Run.create(config.output_dir, name, config.overwrite, records)
        run.file(CHECKPOINTS).mkdir()  # the sign of an unfinished run
    return run


@contextmanager
def _first_process_first(state: PartialState) -> Iterator[None]:
    """Lets the others begin when the first process is done; where it fails, all fail."""
    if not state.is_main_process:
        failure = broadcast_object_list([""])[0]
        if failure:
            raise FeatherweightError(failure)
        yield
        return
    try:
        yield
    except Exception as error:
        broadcast_object_list([str(error) or type(error).__name__])
        raise
    broadcast_object_list([""])


def _logged(state: PartialState, run: Run) -> AbstractContextManager[None]:
    return logged_to(run.file("training.log")) if state.is_main_process else nullcontext()


def with_rate(config: FinetuneConfig, files: Files) -> FinetuneConfig:
    """Returns the flags with the learning rate that suits a model, where they leave it open."""
    suits = files.model.learning_rate if files.model else LEARNING_RATE
    return replace(config, learning_rate=config.learning_rate or suits)


def tokenizer_and_model(config: FinetuneConfig, files: Files, dataset: Dataset) -> tuple[Any, Any]:
    """Loads what is fine-tuned: with a head for the data's labels, and seeded.

    Args:
        config: Seed, and where texts are cut.
        files: Of the pretrained model.
        dataset: Its labels are those of the head.

    Raises:
        WeightsError: The files cannot be used.
    """
    seed_everything(config.seed)
    # On CUDA some operations of some models have no deterministic form.
    torch.use_deterministic_algorithms(True, warn_only=True)
    tokenizer = load_tokenizer(files.folder)
    labels = dict(enumerate(dataset.labels))
    model = load_model(
        AutoModelForSequenceClassification,
        files.folder,
        num_labels=len(labels),
        id2label=labels,
        label2id={name: index for index, name in labels.items()},
        ignore_mismatched_sizes=True,
    )
    tokenizer.model_max_length = min(config.max_length, max_length(tokenizer, model.config))
    if files.model and files.model.normalizer:
        setattr(model.config, NORMALIZER, files.model.normalizer)
    return tokenizer, model
