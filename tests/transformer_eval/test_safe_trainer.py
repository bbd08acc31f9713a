"""Loss, checkpoints and resuming of the training loop."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from featherweight.errors import NothingToDo, UsageError, WeightsError
from featherweight.reports import reporting
from featherweight.run import CHECKPOINTS, Run
from tests.conftest import untouched_generators
from tests.helpers.finetuning import (
    flags,
    history_without_times,
    set_scores,
    small,
    train,
    weights,
)
from transformer_eval import finetune as finetune_module
from transformer_eval.config import FinetuneConfig
from transformer_eval.finetune import finetune
from transformer_eval.safe_trainer import SafeTrainer

ROOT = Path(__file__).parents[2]
TEXTS = ["i am so happy", "he lied", "nothing is left, i miss him so", "stop it", "glad", "so sad",
         "angry at this queue and at the boss", "the sun"]  # fmt: skip
LABELS = [1, 0, 2, 0, 1, 2, 0, 1]


def checkpoints(run: Path) -> list[Path]:
    return sorted(
        (run / CHECKPOINTS).glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1])
    )


def interrupted(config: FinetuneConfig, epochs: int) -> Path:
    """Trains until the checkpoint of an epoch is written; returns the run."""
    save, calls = Trainer._save_checkpoint, iter(range(1, 100))

    def save_and_interrupt(self: Any, *arguments: Any) -> None:
        save(self, *arguments)
        if next(calls) == epochs:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as context:
        context.setattr(Trainer, "_save_checkpoint", save_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            finetune(config, config.model[0])
    return config.output_dir / config.name


@pytest.fixture(scope="module")
def after_one_epoch(
    tmp_path_factory: pytest.TempPathFactory, tiny_data: Path, tiny_bert: Path
) -> Path:
    """A read-only run of `small` that was interrupted after its first epoch."""
    with untouched_generators():
        return interrupted(small(tiny_data, tmp_path_factory.mktemp("one"), tiny_bert), 1)


@pytest.fixture
def unfinished(after_one_epoch: Path, tmp_path: Path) -> Path:
    """A copy of the interrupted run."""
    return Path(shutil.copytree(after_one_epoch, tmp_path / "small"))


def trainer(tiny_bert: Path, folder: Path, **changes: Any) -> SafeTrainer:
    """Returns a trainer of a network without dropout that does not shuffle the texts."""
    config = AutoConfig.from_pretrained(
        tiny_bert, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    rows = [{**tokenizer(text), "labels": label} for text, label in zip(TEXTS, LABELS, strict=True)]
    class_weights = changes.pop("class_weights", torch.ones(3))
    label_smoothing = changes.pop("label_smoothing", 0.0)
    arguments: dict[str, Any] = {
        "output_dir": str(folder), "max_steps": 1, "learning_rate": 1e-3, "use_cpu": True,
        "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "report_to": "none",
        "save_strategy": "no", "train_sampling_strategy": "sequential",
        "dataloader_pin_memory": False, "disable_tqdm": True, "optim": "sgd",
    }  # fmt: skip
    return SafeTrainer(
        class_weights=class_weights,
        label_smoothing=label_smoothing,
        model=AutoModelForSequenceClassification.from_pretrained(tiny_bert, config=config),
        args=TrainingArguments(**arguments, **changes),
        train_dataset=rows,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
    )


def weights_after_a_step(tiny_bert: Path, folder: Path, **changes: Any) -> dict[str, Tensor]:
    one_step = trainer(tiny_bert, folder, **changes)
    one_step.train()
    assert one_step.state.global_step == 1
    return dict(one_step.model.state_dict())


@pytest.mark.parametrize(
    ("class_weights", "label_smoothing"),
    [((1.0, 1.0, 1.0), 0.0), ((0.2, 1.0, 3.0), 0.0), ((1.0, 1.0, 1.0), 0.3)],
)
def test_loss_is_the_weighted_and_smoothed_cross_entropy(
    tiny_bert: Path, tmp_path: Path, class_weights: tuple[float, ...], label_smoothing: float
) -> None:
    weight = torch.tensor(class_weights)
    tested = trainer(tiny_bert, tmp_path, class_weights=weight, label_smoothing=label_smoothing)
    batch = tested.data_collator([tested.train_dataset[index] for index in range(8)])
    tested.model.eval()
    loss, outputs = tested.compute_loss(tested.model, batch, return_outputs=True)
    logits = tested.model(batch["input_ids"], batch["attention_mask"]).logits
    expected = functional.cross_entropy(
        logits, batch["labels"], weight=weight, label_smoothing=label_smoothing
    )
    assert torch.equal(outputs.logits, logits)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert tested.compute_loss(tested.model, batch).item() == loss.item()
    plain = functional.cross_entropy(logits, batch["labels"]).item()
    changed = class_weights != (1.0, 1.0, 1.0) or label_smoothing > 0
    assert (loss.item() != pytest.approx(plain)) == changed


def test_gradients_of_two_batches_add_up_to_those_of_one(tiny_bert: Path, tmp_path: Path) -> None:
    start = {k: v.clone() for k, v in trainer(tiny_bert, tmp_path).model.state_dict().items()}
    once = weights_after_a_step(tiny_bert, tmp_path, per_device_train_batch_size=8)
    accumulated = weights_after_a_step(
        tiny_bert, tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=2
    )
    half = weights_after_a_step(tiny_bert, tmp_path, per_device_train_batch_size=4)
    for name in once:
        torch.testing.assert_close(accumulated[name], once[name], atol=1e-6, rtol=0)
    assert max(float((once[name] - half[name]).abs().max()) for name in once) > 1e-4
    assert max(float((once[name] - start[name]).abs().max()) for name in once) > 1e-4


@pytest.mark.parametrize("choice", ["balanced", "none"])
def test_class_weights_and_smoothing_of_the_config_reach_the_loss(
    tiny_data: Path,
    tmp_path: Path,
    tiny_bert: Path,
    monkeypatch: pytest.MonkeyPatch,
    choice: Any,
) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    lines = (data / "train.csv").read_text(encoding="utf-8").splitlines()
    others = [line for line in lines if not line.endswith(",anger")]
    anger = [line for line in lines if line.endswith(",anger")][:3]
    (data / "train.csv").write_text("\n".join([*others, *anger]) + "\n", encoding="utf-8")
    seen: list[tuple[list[float], float]] = []

    def stop(_: Any, **arguments: Any) -> NoReturn:
        seen.append((arguments["class_weights"].tolist(), arguments["label_smoothing"]))
        raise KeyboardInterrupt

    monkeypatch.setattr(SafeTrainer, "__init__", stop)
    with pytest.raises(KeyboardInterrupt):
        train(small(data, tmp_path, tiny_bert, class_weights=choice, label_smoothing=0.2))
    # 3, 12 and 12 texts: 27 / (3 * 3) and 27 / (3 * 12).
    expected = [3.0, 0.75, 0.75] if choice == "balanced" else [1.0, 1.0, 1.0]
    assert seen == [(pytest.approx(expected), 0.2)]


def test_run_resumed_after_an_epoch_equals_an_uninterrupted_run(
    tuned: Path,
    unfinished: Path,
    tiny_data: Path,
    tmp_path: Path,
    tiny_bert: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not (unfinished / "transformer").exists()

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("torch.load would unpickle")

    monkeypatch.setattr(torch, "load", refuse)
    # Without a name the unfinished run is found.
    run = train(small(tiny_data, tmp_path, tiny_bert, name="", resume=True))
    assert run == unfinished
    assert weights(run) == weights(tuned)
    assert history_without_times(run) == history_without_times(tuned)
    assert {path.name for path in run.iterdir()} == {path.name for path in tuned.iterdir()}


def test_resumed_run_keeps_gradient_accumulation_and_clipping(
    tiny_data: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    config = small(
        tiny_data, tmp_path, tiny_bert, batch_size=5, gradient_accumulation_steps=3,
        max_grad_norm=0.1, schedule="cosine", label_smoothing=0.1,
    )  # fmt: skip
    uninterrupted = train(replace(config, name="uninterrupted"))
    interrupted(config, 1)
    assert weights(train(replace(config, resume=True))) == weights(uninterrupted)


KILLED = """
import os, signal, sys
from transformer_eval.safe_trainer import History

def kill(self, args, state, control, **_):
    if state.global_step == 8:  # of 5 per epoch
        os.kill(os.getpid(), signal.SIGKILL)

History.on_step_end = kill
from featherweight.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_run_killed_within_an_epoch_equals_an_uninterrupted_run(
    tuned: Path, tiny_data: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, *flags(tmp_path, tiny_data, tiny_bert)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
    )
    assert ended.returncode == -signal.SIGKILL
    run = tmp_path / "small"
    assert [path.name for path in checkpoints(run)] == ["checkpoint-5"]
    assert train(small(tiny_data, tmp_path, tiny_bert, resume=True)) == run
    assert weights(run) == weights(tuned)
    assert history_without_times(run) == history_without_times(tuned)


def test_resumed_run_remembers_that_it_stopped_early(
    tiny_data: Path, tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_scores(monkeypatch, 0.5, 0.4)
    config = small(tiny_data, tmp_path, tiny_bert, epochs=4, patience=1)
    interrupted(config, 2)
    # There are no scores for a third epoch.
    run = train(replace(config, resume=True))
    assert [record["epoch"] for record in history_without_times(run)] == [1, 2]


def test_resumed_run_remembers_its_patience(
    tiny_data: Path, tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_scores(monkeypatch, 0.5, 0.4, 0.3)
    config = small(tiny_data, tmp_path, tiny_bert, epochs=5, patience=2)
    interrupted(config, 2)
    run = train(replace(config, resume=True))
    assert [record["epoch"] for record in history_without_times(run)] == [1, 2, 3]


@pytest.mark.parametrize("step", ["evaluate", "write_evaluation"])
def test_run_interrupted_after_its_last_epoch_is_resumed(
    tuned: Path,
    unfinished: Path,
    tiny_data: Path,
    tmp_path: Path,
    tiny_bert: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    def interrupt(*_: Any) -> NoReturn:
        raise KeyboardInterrupt

    config = small(tiny_data, tmp_path, tiny_bert, resume=True)
    with monkeypatch.context() as context:
        context.setattr(finetune_module, step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    run = train(config)
    assert run == unfinished
    assert weights(run) == weights(tuned)
    assert history_without_times(run) == history_without_times(tuned)
    assert {path.name for path in run.iterdir()} == {path.name for path in tuned.iterdir()}


@pytest.mark.parametrize("picture", ["training_curves", "confusion_matrix"])
def test_picture_that_cannot_be_drawn_leaves_a_finished_run(
    tuned: Path, unfinished: Path, tiny_data: Path, tmp_path: Path, tiny_bert: Path,
    monkeypatch: pytest.MonkeyPatch, picture: str,
) -> None:  # fmt: skip
    def fail(*_: Any) -> NoReturn:
        raise MemoryError

    monkeypatch.setattr(reporting, picture, fail)
    run = train(small(tiny_data, tmp_path, tiny_bert, resume=True))
    assert run == unfinished
    assert Run(run).finished
    files = {path.name for path in tuned.iterdir()} - {f"{picture}.png"}
    assert {path.name for path in run.iterdir()} == files


@pytest.fixture(scope="module")
def best_is_second(
    tmp_path_factory: pytest.TempPathFactory, tiny_data: Path, tiny_bert: Path
) -> Path:
    """A run of two epochs, the second of which has the better score."""
    with untouched_generators(), pytest.MonkeyPatch.context() as context:
        set_scores(context, 0.5, 0.6)
        return train(small(tiny_data, tmp_path_factory.mktemp("best"), tiny_bert))


@pytest.mark.parametrize(
    "missing", ["trainer_state.json", "model.safetensors", "state.safetensors", "generators-0"]
)
def test_incomplete_newest_checkpoint_is_skipped(
    best_is_second: Path,
    tiny_data: Path,
    tmp_path: Path,
    tiny_bert: Path,
    monkeypatch: pytest.MonkeyPatch,
    missing: str,
) -> None:
    config = small(tiny_data, tmp_path, tiny_bert)
    # The first checkpoint stays because it is the best; the second epoch is trained again.
    set_scores(monkeypatch, 0.5, 0.4, 0.6)
    _, newest = checkpoints(interrupted(config, 2))
    (file,) = newest.glob(f"{missing}*")
    file.unlink()
    resumed = train(replace(config, resume=True))
    assert weights(resumed) == weights(best_is_second)
    assert history_without_times(resumed) == history_without_times(best_is_second)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def replace_tensors(file: Path) -> None:
    save_file({"a.b": torch.zeros(3)}, file, {"schedule": "{}"})


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", truncate),
        ("model.safetensors", empty),
        ("state.safetensors", truncate),
        ("state.safetensors", empty),
        ("state.safetensors", replace_tensors),
        ("generators-0.safetensors", truncate),
        ("generators-0.safetensors", replace_tensors),
    ],
)
def test_damaged_checkpoint_is_refused_in_one_line(
    unfinished: Path, tiny_data: Path, tmp_path: Path, tiny_bert: Path, name: str, damage: Any
) -> None:
    (checkpoint,) = checkpoints(unfinished)
    damage(checkpoint / name)
    named = checkpoint if name == "model.safetensors" else checkpoint / name
    with pytest.raises(WeightsError, match=str(named)) as caught:
        train(small(tiny_data, tmp_path, tiny_bert, resume=True))
    assert "\n" not in str(caught.value)


def test_damaged_trainer_state_is_refused_in_one_line(
    unfinished: Path, tiny_data: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    (checkpoint,) = checkpoints(unfinished)
    (checkpoint / "trainer_state.json").write_text('{"epoch":')
    with pytest.raises(WeightsError, match=r"trainer_state\.json is not JSON"):
        train(small(tiny_data, tmp_path, tiny_bert, resume=True))


def test_checkpoint_consists_of_tensors_and_json(after_one_epoch: Path) -> None:
    (checkpoint,) = checkpoints(after_one_epoch)
    assert {path.name for path in checkpoint.iterdir()} == {
        "config.json",
        "generators-0.safetensors",
        "model.safetensors",
        "state.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "trainer_state.json",
    }
    names = load_file(checkpoint / "state.safetensors")
    assert {name.split(".")[1] for name in names} == {"step", "exp_avg", "exp_avg_sq"}


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 4},
        {"seed": 1},
        {"learning_rate": 2e-3},
        {"max_length": 64},
        {"gradient_accumulation_steps": 2},
        {"precision": "bf16"},
        {"class_weights": "balanced"},
        {"model": ["another"]},
    ],
)
def test_resume_with_other_flags_is_refused(
    unfinished: Path, tiny_data: Path, tmp_path: Path, tiny_bert: Path, changes: dict[str, Any]
) -> None:
    config = small(tiny_data, tmp_path, tiny_bert, resume=True)
    before = {path: path.stat().st_mtime_ns for path in unfinished.rglob("*")}
    (flag,) = changes
    with pytest.raises(UsageError, match=f"--{flag} ") as caught:
        finetune(replace(config, **changes), str(tiny_bert))
    assert "\n" not in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in unfinished.rglob("*")} == before


def test_resume_with_changed_data_is_refused(
    tiny_data: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    shutil.copytree(tiny_data, tmp_path / "data")
    config = small(tmp_path / "data", tmp_path / "outputs", tiny_bert)
    interrupted(config, 1)
    with (tmp_path / "data" / "test.csv").open("a", encoding="utf-8") as file:
        file.write("one more,joy\n")
    with pytest.raises(UsageError, match="has changed"):
        train(replace(config, resume=True))


def test_finished_run_is_not_resumed(
    tuned: Path, tiny_data: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    shutil.copytree(tuned, tmp_path / "small")
    config = small(tiny_data, tmp_path, tiny_bert, resume=True)
    with pytest.raises(NothingToDo, match="finished: nothing to resume"):
        train(config)
    with pytest.raises(UsageError, match="nothing to resume"):
        train(replace(config, name=""))
    assert weights(tmp_path / "small") == weights(tuned)


def test_resume_of_a_run_that_does_not_exist_trains_it(
    tuned: Path, tiny_data: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    run = train(small(tiny_data, tmp_path, tiny_bert, resume=True))
    assert weights(run) == weights(tuned)
