"""`finetune`: BERT-family models with the splits, metric and run directory of the LSTM."""

import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import AutoModelForSequenceClassification

from featherweight.data.checks import Findings
from featherweight.data.dataset import Dataset
from featherweight.device import resolve_device, seed_everything
from featherweight.disk.atomic import atomic_directory
from featherweight.errors import FeatherweightError, UsageError, first_line
from featherweight.quality.evaluation import Evaluation, evaluate
from featherweight.reports.reporting import draw_evaluation, draw_training, write_evaluation
from featherweight.run import CHECKPOINTS, TRANSFORMER, Run
from featherweight.training.run_records import first_records, logged_to, prepare_data, written_run
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
from transformer_eval.registry import Pretrained
from transformer_eval.safe_trainer import SafeTrainer, read_history

logger = logging.getLogger("featherweight")


def finetune(config: FinetuneConfig, model: str) -> tuple[Run, list[Evaluation]] | None:
    """Fine-tunes one model and writes a run directory.

    Under `accelerate launch` every process calls this; only the first one writes and reports.

    Args:
        config: Data and hyperparameters.
        model: Registry name, Hub id or folder.

    Returns:
        The run, and a list of its one evaluation on the validation split; None in all processes
        except the first.

    Raises:
        DataError: The data is not usable.
        UsageError: The flags do not fit the machine, the model or an existing run.
        WeightsError: The model is not available, or the run to resume is damaged.
    """
    device = resolve_device(config.device)
    number_format = precision(config, device)
    state = PartialState(cpu=device == "cpu")
    if not state.is_main_process:
        logger.setLevel(logging.ERROR)
    with ExitStack() as stack:
        with _first_process_first(state):
            files = fetch(model)
            dataset, findings = prepare_data(config)
            # Before the run is created, so that an unusable model leaves no files.
            tokenizer, network = tokenizer_and_model(config, files, dataset)
            run = Run(Path())
            if state.is_main_process:
                run = stack.enter_context(_written_run(config, files, dataset, findings))
        path = Path(broadcast_object_list([str(run.path)])[0])
        if state.is_main_process:
            stack.enter_context(logged_to(run.file("training.log")))
        else:
            run = Run(path)
        logger.info("%s on %s: %d training texts, %s in %s, %d process(es)", files.name,
                    dataset.name, len(dataset.train), device, number_format,
                    state.num_processes)  # fmt: skip
        trainer = fit(network, tokenizer, dataset, with_rate(config, files), run)
        if not state.is_main_process:
            return None
        evaluation = _finish(run, trainer, dataset, device)
        logger.info("finished: %s", run.final)
    draw_training(run, read_history(run))
    draw_evaluation(run, evaluation)
    return run, [evaluation]


@contextmanager
def _written_run(
    config: FinetuneConfig, files: Files, dataset: Dataset, findings: Findings
) -> Iterator[Run]:
    name = config.name or f"{files.name}-{dataset.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if (config.output_dir / name).resolve() in files.folder.resolve().parents:
        raise UsageError(f"--overwrite would delete {files.folder}, which --model names")
    records = partial(first_records, config, dataset, findings)
    with written_run(config, dataset, name, records) as run:
        run.file(CHECKPOINTS).mkdir(exist_ok=True)  # marks the run as unfinished
        yield run


@contextmanager
def _first_process_first(state: PartialState) -> Iterator[None]:
    """Makes the other processes wait for the first one, and fail if it fails."""
    if not state.is_main_process:
        failure = broadcast_object_list([""])[0]
        if failure:
            raise FeatherweightError(failure)
        yield
        return
    try:
        yield
    except Exception as error:
        broadcast_object_list([first_line(error)])
        raise
    broadcast_object_list([""])


def _finish(run: Run, trainer: SafeTrainer, dataset: Dataset, device: str) -> Evaluation:
    """Writes the trained model and its evaluation on validation, and removes the checkpoints."""
    with atomic_directory(run.file(TRANSFORMER)) as folder:
        trainer.model.save_pretrained(folder)
        trainer.processing_class.save_pretrained(folder)
    classifier = TransformerClassifier.load(run.file(TRANSFORMER), device, run.final.name)
    evaluation = evaluate(classifier, dataset.validation, dataset.name)
    write_evaluation(run, evaluation, dataset.validation.texts)
    # Renamed first: a kill while files are deleted must not leave incomplete checkpoints.
    leftover = run.file(CHECKPOINTS).rename(run.file(f".{CHECKPOINTS}"))
    shutil.rmtree(leftover, ignore_errors=True)
    return evaluation


def with_rate(config: FinetuneConfig, files: Files) -> FinetuneConfig:
    """Returns the config with the default learning rate of the model if none is set."""
    default = (files.model or Pretrained).learning_rate
    return replace(config, learning_rate=config.learning_rate or default)


def tokenizer_and_model(config: FinetuneConfig, files: Files, dataset: Dataset) -> tuple[Any, Any]:
    """Loads a tokenizer and a network with a head for the data's labels, and seeds all generators.

    Args:
        config: Seed and maximum length.
        files: The pretrained model.
        dataset: Its labels are those of the head.

    Raises:
        WeightsError: The files are not usable.
    """
    seed_everything(config.seed)
    # On CUDA some operations of some models have no deterministic form.
    torch.use_deterministic_algorithms(True, warn_only=True)
    tokenizer = load_tokenizer(files.folder)
    model = with_new_head(files, dataset.labels)
    tokenizer.model_max_length = min(config.max_length, max_length(tokenizer, model.config))
    return tokenizer, model


def with_new_head(files: Files, labels: Sequence[str]) -> Any:
    """Loads a network with a head for these labels; a head of another size is replaced.

    Its config names the text normalization that the registry states for the model.

    Raises:
        WeightsError: The files are not usable.
    """
    network = load_model(
        AutoModelForSequenceClassification,
        files.folder,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    if files.model and files.model.normalizer:
        setattr(network.config, NORMALIZER, files.model.normalizer)
    return network
