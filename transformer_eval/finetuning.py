"""`finetune`: any BERT-family model on the splits, the metric and the run directory of the LSTM."""

import logging
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    EvalPrediction,
    TrainingArguments,
)

from featherweight.checks import Findings
from featherweight.dataset import Dataset, Split
from featherweight.device import cpu_flags, resolve_device, seed_everything
from featherweight.errors import UsageError
from featherweight.evaluation import Evaluation, evaluate, validation_scores
from featherweight.experiment import cut_off_run, first_records, logged_to, prepare_data
from featherweight.plots import training_curves
from featherweight.reporting import write_evaluation
from featherweight.run import CHECKPOINTS, TRANSFORMER, Run, atomic_directory
from featherweight.training import class_weights
from transformer_eval.classifier import (
    NORMALISER,
    TransformerClassifier,
    load_model,
    load_tokenizer,
    max_length,
)
from transformer_eval.config import FinetuneConfig
from transformer_eval.normalisation import NORMALISERS
from transformer_eval.pretrained import Files, fetch
from transformer_eval.trainer import History, SafeTrainer, read_history, show_only_progress

logger = logging.getLogger("featherweight")

_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
_LEARNING_RATE = 2e-5  # of a model that the registry does not know
_EVALUATION_BATCH = 64


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
    precision = _precision(config, device)
    state = PartialState(cpu=device == "cpu")
    if not state.is_main_process:
        logger.setLevel(logging.ERROR)
    with state.main_process_first():
        files = fetch(model)
        dataset, findings = prepare_data(config)
    run = _shared_run(state, lambda: _run(config, files, dataset, findings))
    with _logged(state, run):
        logger.info("%s on %s: %d training texts, %s in %s, %d process(es)", files.name,
                    dataset.name, len(dataset.train), device, precision,
                    state.num_processes)  # fmt: skip
        trainer = _trainer(config, run, files, dataset, device, precision)
        trainer.train(resume_from_checkpoint=_newest_checkpoint(run))
        if not state.is_main_process:
            return None
        with atomic_directory(run.file(TRANSFORMER)) as folder:
            trainer.model.save_pretrained(folder)
            trainer.processing_class.save_pretrained(folder)
        run.write_bytes("training_curves.png", training_curves(read_history(run)))
        classifier = TransformerClassifier.load(run.file(TRANSFORMER), device, run.path.name)
        evaluation = evaluate(classifier, dataset.validation, dataset.name)
        write_evaluation(run, evaluation, dataset.validation.texts)
        shutil.rmtree(run.file(CHECKPOINTS), ignore_errors=True)
        logger.info("finished: %s", run.path)
    return run, [evaluation]


def _precision(config: FinetuneConfig, device: str) -> str:
    """Turns "auto" into 16 bits where the device computes faster in them.

    Raises:
        UsageError: fp16 on the CPU.
    """
    if config.precision == "fp16" and device == "cpu":
        raise UsageError("--precision fp16 needs CUDA: use bf16, fp32 or auto on the CPU")
    if config.precision != "auto":
        return config.precision
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "bf16" if "avx512_bf16" in cpu_flags() or "amx_bf16" in cpu_flags() else "fp32"


def _run(config: FinetuneConfig, files: Files, dataset: Dataset, findings: Findings) -> Run:
    run = cut_off_run(config, dataset) if config.resume else None
    if run is None:
        name = config.name or f"{files.name}-{dataset.name}-{time.strftime('%Y%m%d-%H%M%S')}"
        records = first_records(config, dataset, findings)
        run = Run.create(config.output_dir, name, config.overwrite, records)
        run.file(CHECKPOINTS).mkdir()  # the sign of an unfinished run
    return run


def _shared_run(state: PartialState, make: Callable[[], Run]) -> Run:
    """Lets the first process make or find the run, and tells the others where it is."""
    path = [str(make().path) if state.is_main_process else ""]
    return Run(Path(broadcast_object_list(path)[0]))


def _logged(state: PartialState, run: Run) -> AbstractContextManager[None]:
    return logged_to(run.file("training.log")) if state.is_main_process else nullcontext()


def _trainer(
    config: FinetuneConfig, run: Run, files: Files, dataset: Dataset, device: str, precision: str
) -> SafeTrainer:
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
    normaliser = files.model.normaliser if files.model else None
    if normaliser:
        setattr(model.config, NORMALISER, normaliser)
    rows = _rows(dataset.train, tokenizer, normaliser)
    weights = class_weights(dataset.train.labels, len(labels), config)
    arguments = _arguments(config, run, files, device, precision)
    texts_per_step = arguments.train_batch_size * arguments.world_size
    texts_per_step *= config.gradient_accumulation_steps
    finished = _finished_epochs(run)
    trainer = SafeTrainer(
        class_weights=torch.from_numpy(weights),
        label_smoothing=config.label_smoothing,
        model=model,
        args=arguments,
        train_dataset=rows * config.passes_per_epoch(len(rows), texts_per_step),
        eval_dataset=_rows(dataset.validation, tokenizer, normaliser),
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=_scores,
        callbacks=[EarlyStoppingCallback(config.patience), History(run, finished)],
    )
    show_only_progress(trainer)
    return trainer


def _arguments(
    config: FinetuneConfig, run: Run, files: Files, device: str, precision: str
) -> TrainingArguments:
    suits = files.model.learning_rate if files.model else _LEARNING_RATE
    return TrainingArguments(
        output_dir=str(run.file(CHECKPOINTS).resolve()),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=_EVALUATION_BATCH,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        learning_rate=config.learning_rate or suits,
        weight_decay=config.weight_decay,
        lr_scheduler_type=_SCHEDULES[config.schedule],
        warmup_steps=config.warmup_ratio,
        max_grad_norm=config.max_grad_norm,
        train_sampling_strategy="group_by_length",
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=device == "cpu",
        dataloader_pin_memory=device == "cuda",
        seed=config.seed,
        eval_strategy="epoch",
        logging_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,  # and the best one
        load_best_model_at_end=True,
        metric_for_best_model="validation_macro_f1",
        restore_callback_states_from_checkpoint=True,
        disable_tqdm=not sys.stderr.isatty(),
        report_to="none",
    )


def _rows(split: Split, tokenizer: Any, normaliser: str | None) -> list[dict[str, Any]]:
    """Tokenises a split; padding comes later, batch by batch."""
    normalise = NORMALISERS[normaliser] if normaliser else str
    encoded = tokenizer(
        [normalise(text) for text in split.texts],
        truncation=True,
        max_length=tokenizer.model_max_length,
    )
    columns = zip(*encoded.values(), strict=True)
    return [
        {**dict(zip(encoded, values, strict=True)), "labels": label}
        for values, label in zip(columns, split.labels.tolist(), strict=True)
    ]


def _scores(prediction: EvalPrediction) -> dict[str, float]:
    return validation_scores(np.asarray(prediction.label_ids), np.asarray(prediction.predictions))


def _checkpoints(run: Run) -> list[Path]:
    """Returns the whole checkpoints, the newest last: their JSON state is written at the end."""
    states = run.file(CHECKPOINTS).glob("checkpoint-*/trainer_state.json")
    return sorted((path.parent for path in states), key=lambda path: int(path.name.split("-")[1]))


def _newest_checkpoint(run: Run) -> str | None:
    checkpoints = _checkpoints(run)
    return str(checkpoints[-1].resolve()) if checkpoints else None


def _finished_epochs(run: Run) -> int:
    checkpoints = _checkpoints(run)
    if not checkpoints:
        return 0
    return round(Run(checkpoints[-1]).read_json("trainer_state.json")["epoch"])
