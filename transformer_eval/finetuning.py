"""`finetune`: any BERT-family model on the splits, the metric and the run directory of the LSTM."""

import logging
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
from featherweight.errors import FeatherweightError, UsageError
from featherweight.evaluation import Evaluation, evaluate, validation_scores
from featherweight.experiment import cut_off_run, first_records, logged_to, prepare_data
from featherweight.plots import training_curves
from featherweight.reporting import write_evaluation
from featherweight.run import CHECKPOINTS, MODEL, TRANSFORMER, Run, atomic_directory
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
from transformer_eval.trainer import STATE, History, SafeTrainer, read_history, show_only_progress

logger = logging.getLogger("featherweight")

_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
_LEARNING_RATE = 2e-5  # of a model that the registry does not know
_EVALUATION_BATCH = 64
_PROGRESS = "trainer_state.json"  # the last file that is written of a checkpoint
_CHECKPOINT_FILES = (MODEL, STATE, "generators-0.safetensors", _PROGRESS)


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
    with _first_process_first(state):
        files = fetch(model)
        dataset, findings = prepare_data(config)
        # Before there is a run: a model that cannot be used leaves nothing behind.
        tokenizer, network = _tokenizer_and_model(config, files, dataset)
        own = _run(config, files, dataset, findings) if state.is_main_process else None
    run = Run(Path(broadcast_object_list([str(own.path) if own else ""])[0]))
    with _logged(state, run):
        logger.info("%s on %s: %d training texts, %s in %s, %d process(es)", files.name,
                    dataset.name, len(dataset.train), device, precision,
                    state.num_processes)  # fmt: skip
        arguments = _arguments(config, run, files, device, precision)
        trainer = _trainer(config, run, dataset, tokenizer, network, arguments)
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
        # In one step: a kill among many deletions would leave a checkpoint that lacks files.
        leftover = run.file(CHECKPOINTS).rename(run.file(f".{CHECKPOINTS}"))
        shutil.rmtree(leftover, ignore_errors=True)
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


def _tokenizer_and_model(config: FinetuneConfig, files: Files, dataset: Dataset) -> tuple[Any, Any]:
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
    if files.model and files.model.normaliser:
        setattr(model.config, NORMALISER, files.model.normaliser)
    return tokenizer, model


def _trainer(
    config: FinetuneConfig,
    run: Run,
    dataset: Dataset,
    tokenizer: Any,
    model: Any,
    arguments: TrainingArguments,
) -> SafeTrainer:
    normaliser = getattr(model.config, NORMALISER, None)
    rows = _rows(dataset.train, tokenizer, normaliser)
    weights = class_weights(dataset.train.labels, len(dataset.labels), config)
    texts_per_step = arguments.train_batch_size * arguments.world_size
    texts_per_step *= config.gradient_accumulation_steps
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
        callbacks=[EarlyStoppingCallback(config.patience), History(run, _finished_epochs(run))],
    )
    show_only_progress(trainer)
    return trainer


def _arguments(
    config: FinetuneConfig, run: Run, files: Files, device: str, precision: str
) -> TrainingArguments:
    suits = files.model.learning_rate if files.model else _LEARNING_RATE
    return TrainingArguments(
        output_dir=str(run.file(CHECKPOINTS).resolve()),
        num_train_epochs=_finished_epochs(run) if _stopped_early(run) else config.epochs,
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
    normalise = NORMALISERS.get(normaliser or "", str)
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


def _newest_checkpoint(run: Run) -> Path | None:
    """Returns the last whole checkpoint; a kill may leave others with files missing."""
    folders = run.file(CHECKPOINTS).glob("checkpoint-*")
    whole = [it for it in folders if all((it / name).is_file() for name in _CHECKPOINT_FILES)]
    return max(whole, key=lambda folder: int(folder.name.split("-")[1]), default=None)


def _progress(run: Run) -> dict[str, Any]:
    """Returns what the last checkpoint says of the training so far."""
    checkpoint = _newest_checkpoint(run)
    return Run(checkpoint).read_json(_PROGRESS) if checkpoint else {}


def _finished_epochs(run: Run) -> int:
    return round(_progress(run).get("epoch", 0))


def _stopped_early(run: Run) -> bool:
    """Says whether no epoch is left to train; the Trainer itself would forget it on resuming."""
    callbacks = _progress(run).get("stateful_callbacks", {})
    return bool(callbacks) and callbacks["TrainerControl"]["args"]["should_training_stop"]
