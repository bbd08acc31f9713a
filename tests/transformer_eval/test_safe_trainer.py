"""What the loop does to weights, and what survives of it when it is killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
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

from featherweight.errors import UsageError, WeightsError
from featherweight.run import CHECKPOINTS
from transformer_eval import finetune as finetune_module
from transformer_eval import fit
from transformer_eval.config import FinetuneConfig
from transformer_eval.finetune import finetune
from transformer_eval.safe_trainer import SafeTrainer

ROOT = Path(__file__).parents[2]
TEXTS = ["i am so happy", "he lied", "nothing is left, i miss him so", "stop it", "glad", "so sad",
         "angry at this queue and at the boss", "the sun"]  # fmt: skip
LABELS = [1, 0, 2, 0, 1, 2, 0, 1]


def small(data: Path, output_dir: Path, model: Path, **changes: Any) -> FinetuneConfig:
    given: dict[str, Any] = {
        "data": str(data), "output_dir": output_dir, "model": [str(model)], "name": "small",
        "epochs": 3, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32", "device": "cpu",
    }  # fmt: skip
    return FinetuneConfig(**{**given, **changes})


def train(config: FinetuneConfig) -> Path:
    made = finetune(config, config.model[0])
    assert made is not None
    return made[0].path


def weights(run: Path) -> bytes:
    return (run / "transformer" / "model.safetensors").read_bytes()


def timeless(run: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    clock = ("seconds", "texts_per_second")
    return [{k: v for k, v in record.items() if k not in clock} for record in records]


def checkpoints(run: Path) -> list[Path]:
    return sorted(
        (run / CHECKPOINTS).glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1])
    )


def with_scores(monkeypatch: pytest.MonkeyPatch, *scores: float) -> None:
    """Lets the epochs have these validation macro-F1, whatever the model answers."""
    given = iter(scores)

    def answer(*_: Any) -> dict[str, float]:
        names = ("validation_loss", "validation_accuracy", "validation_macro_f1")
        return dict.fromkeys(names, next(given))

    monkeypatch.setattr(fit, "validation_scores", answer)


@pytest.fixture
def cut_off(monkeypatch: pytest.MonkeyPatch) -> Callable[[FinetuneConfig, int], Path]:
    """Trains until the checkpoint of that many epochs is written; returns the run."""

    def run(config: FinetuneConfig, epochs: int) -> Path:
        save, calls = Trainer._save_checkpoint, iter(range(1, 100))

        def save_and_die(self: Any, *arguments: Any) -> None:
            save(self, *arguments)
            if next(calls) == epochs:
                raise KeyboardInterrupt

        with monkeypatch.context() as context:
            context.setattr(Trainer, "_save_checkpoint", save_and_die)
            with pytest.raises(KeyboardInterrupt):
                finetune(config, config.model[0])
        return config.output_dir / config.name

    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path, tiny_bert: Path) -> Path:
    """The run of three epochs that nobody cut off, for reading only."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run = train(small(tiny_data, tmp_path_factory.mktemp("whole"), tiny_bert))
    torch.set_num_threads(threads)
    return run


def trainer(tiny_bert: Path, folder: Path, **changes: Any) -> SafeTrainer:
    """A trainer of a network without dropout, whose texts keep their order."""
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


def stepped(tiny_bert: Path, folder: Path, **changes: Any) -> dict[str, Tensor]:
    """Returns the weights after one step."""
    it = trainer(tiny_bert, folder, **changes)
    it.train()
    assert it.state.global_step == 1
    return dict(it.model.state_dict())


@pytest.mark.parametrize("class_weights", [(1.0, 1.0, 1.0), (0.2, 1.0, 3.0)])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
def test_loss_is_the_weighted_and_smoothed_cross_entropy(
    tiny_bert: Path, tmp_path: Path, class_weights: tuple[float, ...], label_smoothing: float
) -> None:
    weight = torch.tensor(class_weights)
    it = trainer(tiny_bert, tmp_path, class_weights=weight, label_smoothing=label_smoothing)
    batch = it.data_collator([it.train_dataset[index] for index in range(8)])
    it.model.eval()
    loss, outputs = it.compute_loss(it.model, batch, return_outputs=True)
    logits = it.model(batch["input_ids"], batch["attention_mask"]).logits
    expected = functional.cross_entropy(
        logits, batch["labels"], weight=weight, label_smoothing=label_smoothing
    )
    assert torch.equal(outputs.logits, logits)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert it.compute_loss(it.model, batch).item() == loss.item()
    plain = functional.cross_entropy(logits, batch["labels"]).item()
    changed = class_weights != (1.0, 1.0, 1.0) or label_smoothing > 0
    assert (loss.item() != pytest.approx(plain)) == changed


def test_gradients_of_two_batches_add_up_to_those_of_one(tiny_bert: Path, tmp_path: Path) -> None:
    start = {k: v.clone() for k, v in trainer(tiny_bert, tmp_path).model.state_dict().items()}
    once = stepped(tiny_bert, tmp_path, per_device_train_batch_size=8)
    twice = stepped(
        tiny_bert, tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=2
    )
    half = stepped(tiny_bert, tmp_path, per_device_train_batch_size=4)
    for name in once:
        torch.testing.assert_close(twice[name], once[name], atol=1e-6, rtol=0)
    assert max(float((once[name] - half[name]).abs().max()) for name in once) > 1e-4
    assert max(float((once[name] - start[name]).abs().max()) for name in once) > 1e-4


@pytest.mark.parametrize("choice", ["balanced", "none"])
def test_class_weights_of_the_config_reach_the_loss(
    tiny_data: Path,
    tmp_path: Path,
    tiny_bert: Path,
    monkeypatch: pytest.MonkeyPatch,
    choice: Any,
) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    lines = (data / "train.csv").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.endswith(",anger")]
    anger = [line for line in lines if line.endswith(",anger")][:3]
    (data / "train.csv").write_text("\n".join([*kept, *anger]) + "\n", encoding="utf-8")
    seen: list[tuple[list[float], float]] = []
    init = SafeTrainer.__init__

    def watch(self: Any, **arguments: Any) -> None:
        seen.append((arguments["class_weights"].tolist(), arguments["label_smoothing"]))
        init(self, **arguments)

    monkeypatch.setattr(SafeTrainer, "__init__", watch)
    train(small(data, tmp_path, tiny_bert, epochs=1, class_weights=choice, label_smoothing=0.2))
    # 3, 12 and 12 texts: 27 / (3 * 3) and 27 / (3 * 12).
    expected = [3.0, 0.75, 0.75] if choice == "balanced" else [1.0, 1.0, 1.0]
    assert seen == [(pytest.approx(expected), 0.2)]


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_resumed_run_ends_as_an_uninterrupted_one(
    whole: Path,
    tiny_data: Path,
    tmp_path: Path,
    tiny_bert: Path,
    cut_off: Any,
    monkeypatch: pytest.MonkeyPatch,
    epochs: int,
) -> None:
    config = small(tiny_data, tmp_path, tiny_bert)
    cut = cut_off(config, epochs)
    assert not (cut / "transformer").exists()

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("something pickled is loaded")

    monkeypatch.setattr(torch, "load", refuse)
    # Without a name the run that was cut off is found.
    run = train(replace(config, name="" if epochs == 2 else "small", resume=True))
    assert run == cut
    assert weights(run) == weights(whole)
    assert timeless(run) == timeless(whole)
    assert {path.name for path in run.iterdir()} == {path.name for path in whole.iterdir()}


def test_resumed_run_keeps_gradient_accumulation_and_clipping(
    tiny_data: Path, tmp_path: Path, tiny_bert: Path, cut_off: Any
) -> None:
    config = small(
        tiny_data, tmp_path, tiny_bert, batch_size=5, gradient_accumulation_steps=3,
        max_grad_norm=0.1, schedule="cosine", label_smoothing=0.1,
    )  # fmt: skip
    straight = train(replace(config, name="straight"))
    cut_off(config, 2)
    assert weights(train(replace(config, resume=True))) == weights(straight)


KILLED = """
import os, signal, sys
from transformer_eval.safe_trainer import History

def die(self, args, state, control, **_):
    if state.global_step == 8:  # five are an epoch
        os.kill(os.getpid(), signal.SIGKILL)

History.on_step_end = die
from featherweight.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_run_killed_for_real_amid_an_epoch_ends_as_one_left_alone(
    whole: Path, tiny_data: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    given = {"data": tiny_data, "output_dir": tmp_path, "model": tiny_bert, "name": "small"}
    config = small(tiny_data, tmp_path, tiny_bert)
    same = ("epochs", "batch_size", "learning_rate", "precision", "device")
    values = {**given, **{name: getattr(config, name) for name in same}}
    flags = ["finetune", *(f"--{name}={value}" for name, value in values.items())]
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, *flags],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
    )
    assert ended.returncode == -signal.SIGKILL
    run = tmp_path / "small"
    assert [path.name for path in checkpoints(run)] == ["checkpoint-5"]
    assert train(replace(config, resume=True)) == run
    assert weights(run) == weights(whole)
    assert timeless(run) == timeless(whole)


def test_early_stopping_is_not_forgotten_by_a_resumed_run(
    tiny_data: Path, tmp_path: Path, tiny_bert: Path, cut_off: Any, monkeypatch: Any
) -> None:
    with_scores(monkeypatch, 0.5, 0.4)
    config = small(tiny_data, tmp_path, tiny_bert, epochs=4, patience=1)
    cut_off(config, 2)
    # There are no scores for a third epoch.
    run = train(replace(config, resume=True))
    assert [record["epoch"] for record in timeless(run)] == [1, 2]


def test_patience_goes_on_counting_in_a_resumed_run(
    tiny_data: Path, tmp_path: Path, tiny_bert: Path, cut_off: Any, monkeypatch: Any
) -> None:
    with_scores(monkeypatch, 0.5, 0.4, 0.3)
    config = small(tiny_data, tmp_path, tiny_bert, epochs=5, patience=2)
    cut_off(config, 2)
    run = train(replace(config, resume=True))
    assert [record["epoch"] for record in timeless(run)] == [1, 2, 3]


@pytest.mark.parametrize("step", ["training_curves", "evaluate", "write_evaluation"])
def test_run_cut_off_after_its_last_epoch_is_resumed(
    whole: Path,
    tiny_data: Path,
    tmp_path: Path,
    tiny_bert: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    def die(*_: Any) -> NoReturn:
        raise KeyboardInterrupt

    config = small(tiny_data, tmp_path, tiny_bert)
    with monkeypatch.context() as context:
        context.setattr(finetune_module, step, die)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    run = train(replace(config, resume=True))
    assert weights(run) == weights(whole)
    assert timeless(run) == timeless(whole)
    assert {path.name for path in run.iterdir()} == {path.name for path in whole.iterdir()}


@pytest.mark.parametrize(
    "lost", ["trainer_state.json", "model.safetensors", "state.safetensors", "generators-0"]
)
def test_newest_checkpoint_that_lacks_a_file_is_passed_over(
    tiny_data: Path,
    tmp_path: Path,
    tiny_bert: Path,
    cut_off: Any,
    monkeypatch: pytest.MonkeyPatch,
    lost: str,
) -> None:
    config = small(tiny_data, tmp_path, tiny_bert)
    with_scores(monkeypatch, 0.5, 0.4, 0.6)
    straight = train(replace(config, name="straight"))
    # The first stays as the best; the resumed run has the scores of two epochs to go.
    with_scores(monkeypatch, 0.5, 0.4, 0.4, 0.6)
    _, newest = checkpoints(cut_off(config, 2))
    (file,) = newest.glob(f"{lost}*")
    file.unlink()
    resumed = train(replace(config, resume=True))
    assert weights(resumed) == weights(straight)
    assert timeless(resumed) == timeless(straight)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "state.safetensors", "generators-0.safetensors"]
)
@pytest.mark.parametrize("how", ["truncated", "empty"])
def test_damaged_checkpoint_is_refused_in_one_line(
    tiny_data: Path, tmp_path: Path, tiny_bert: Path, cut_off: Any, name: str, how: str
) -> None:
    config = small(tiny_data, tmp_path, tiny_bert)
    run = cut_off(config, 1)
    (checkpoint,) = checkpoints(run)
    file = checkpoint / name
    if how == "truncated":
        file.write_bytes(file.read_bytes()[:-20])
    else:
        file.write_bytes(b"")
    with pytest.raises(WeightsError, match=str(checkpoint)) as caught:
        train(replace(config, resume=True))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["state.safetensors", "generators-0.safetensors"])
def test_foreign_tensors_in_a_checkpoint_are_refused_in_one_line(
    tiny_data: Path, tmp_path: Path, tiny_bert: Path, cut_off: Any, name: str
) -> None:
    config = small(tiny_data, tmp_path, tiny_bert)
    (checkpoint,) = checkpoints(cut_off(config, 1))
    save_file({"a.b": torch.zeros(3)}, checkpoint / name, {"schedule": "{}"})
    with pytest.raises(WeightsError, match=str(checkpoint / name)) as caught:
        train(replace(config, resume=True))
    assert "\n" not in str(caught.value)


def test_damaged_progress_is_refused_in_one_line(
    tiny_data: Path, tmp_path: Path, tiny_bert: Path, cut_off: Any
) -> None:
    config = small(tiny_data, tmp_path, tiny_bert)
    (checkpoint,) = checkpoints(cut_off(config, 1))
    (checkpoint / "trainer_state.json").write_text('{"epoch":')
    with pytest.raises(WeightsError, match=r"trainer_state\.json is not JSON"):
        train(replace(config, resume=True))


def test_state_of_a_checkpoint_is_tensors_and_json(
    tiny_data: Path, tmp_path: Path, tiny_bert: Path, cut_off: Any
) -> None:
    (checkpoint,) = checkpoints(cut_off(small(tiny_data, tmp_path, tiny_bert), 1))
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
    tiny_data: Path, tmp_path: Path, tiny_bert: Path, cut_off: Any, changes: dict[str, Any]
) -> None:
    config = small(tiny_data, tmp_path, tiny_bert, epochs=2)
    run = cut_off(config, 1)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    (flag,) = changes
    with pytest.raises(UsageError, match=f"--{flag} ") as caught:
        finetune(replace(config, resume=True, **changes), str(tiny_bert))
    assert "\n" not in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_resume_with_changed_data_is_refused(
    tiny_data: Path, tmp_path: Path, tiny_bert: Path, cut_off: Any
) -> None:
    shutil.copytree(tiny_data, tmp_path / "data")
    config = small(tmp_path / "data", tmp_path / "outputs", tiny_bert, epochs=2)
    cut_off(config, 1)
    with (tmp_path / "data" / "test.csv").open("a", encoding="utf-8") as file:
        file.write("one more,joy\n")
    with pytest.raises(UsageError, match="has changed"):
        train(replace(config, resume=True))


def test_finished_run_is_not_resumed(
    whole: Path, tiny_data: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    shutil.copytree(whole, tmp_path / "small")
    config = small(tiny_data, tmp_path, tiny_bert, resume=True)
    with pytest.raises(UsageError, match="finished: nothing to resume"):
        train(config)
    with pytest.raises(UsageError, match="nothing to resume"):
        train(replace(config, name=""))
    assert weights(tmp_path / "small") == weights(whole)


def test_resume_of_a_run_that_never_began_trains_it(
    whole: Path, tiny_data: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    run = train(small(tiny_data, tmp_path, tiny_bert, resume=True))
    assert weights(run) == weights(whole)
