import csv
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, pipeline

from featherweight import load
from featherweight.cli import main
from featherweight.errors import DataError, UsageError, WeightsError
from transformer_eval import classifier, fit
from transformer_eval.classifier import NORMALIZER, TransformerClassifier
from transformer_eval.config import FinetuneConfig
from transformer_eval.finetune import finetune
from transformer_eval.safe_trainer import History

ROOT = Path(__file__).parents[2]
LABELS = ("anger", "joy", "sadness")
SMALL: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 8,
    "learning_rate": 1e-3,
    "precision": "fp32",
    "device": "cpu",
    "name": "small",
}


def small(data: Path, output_dir: Path, model: Path, **changes: Any) -> FinetuneConfig:
    given = {"data": str(data), "output_dir": output_dir, "model": [str(model)], **changes}
    return FinetuneConfig(**{**SMALL, **given})


def train(config: FinetuneConfig) -> Path:
    made = finetune(config, config.model[0])
    assert made is not None
    return made[0].path


def tensors(run: Path) -> dict[str, Tensor]:
    return load_file(run / "transformer" / "model.safetensors")


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def history(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


def timeless(run: Path) -> list[dict[str, Any]]:
    clock = ("seconds", "texts_per_second")
    return [{k: v for k, v in record.items() if k not in clock} for record in history(run)]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def with_scores(monkeypatch: pytest.MonkeyPatch, *scores: float) -> None:
    """Lets the epochs have these validation macro-F1, whatever the model answers."""
    given = iter(scores)

    def answer(*_: Any) -> dict[str, float]:
        return {
            "validation_loss": 1.0,
            "validation_accuracy": 0.5,
            "validation_macro_f1": next(given),
        }

    monkeypatch.setattr(fit, "validation_scores", answer)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path, tiny_bert: Path) -> Path:
    """A finished run, for reading only."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run = train(small(tiny_data, tmp_path_factory.mktemp("outputs"), tiny_bert))
    torch.set_num_threads(threads)
    return run


def test_run_holds_the_files_of_an_lstm_run_and_a_folder_of_the_model(
    tuned: Path, tiny_run: Path
) -> None:
    lstm = {path.name for path in tiny_run.iterdir()}
    assert {path.name for path in tuned.iterdir()} == (
        lstm - {"model.safetensors", "tokenizer.json"} | {"transformer"}
    )
    assert {path.name for path in (tuned / "transformer").iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert [path.name for path in tuned.parent.iterdir()] == ["small"]


def test_files_of_a_run_say_what_was_done(tuned: Path, tiny_run: Path, tiny_bert: Path) -> None:
    config = json.loads((tuned / "config.json").read_text())
    assert config.keys() == FinetuneConfig.__dataclass_fields__.keys()
    assert config["model"] == [str(tiny_bert)]
    assert json.loads((tuned / "labels.json").read_text()) == list(LABELS)
    assert (tuned / "data.json").read_text() == (tiny_run / "data.json").read_text()
    libraries = json.loads((tuned / "environment.json").read_text())["libraries"]
    assert libraries["transformers"]
    assert libraries["accelerate"]
    evaluation = json.loads((tuned / "evaluation.json").read_text())
    lstm = json.loads((tiny_run / "evaluation.json").read_text())
    assert evaluation.keys() == lstm.keys()
    assert (evaluation["split"], evaluation["n"]) == ("validation", 12)
    with (tuned / "predictions.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 12
    for picture in ("training_curves.png", "confusion_matrix.png"):
        assert (tuned / picture).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert "fine-tuned" in (tuned / "README.md").read_text()
    assert "epoch 2/2" in (tuned / "training.log").read_text()


def test_history_has_the_form_of_that_of_an_lstm(tuned: Path, tiny_run: Path) -> None:
    records = history(tuned)
    assert [record["epoch"] for record in records] == [1, 2]
    assert [list(record) for record in records] == [list(it) for it in history(tiny_run)]
    evaluation = json.loads((tuned / "evaluation.json").read_text())
    best = max(records, key=lambda record: record["validation_macro_f1"])
    assert evaluation["macro_f1"] == pytest.approx(best["validation_macro_f1"])
    for record in records:
        assert record["texts_per_second"] * record["seconds"] == pytest.approx(36)


def test_model_is_loaded_by_transformers_and_names_its_classes(tuned: Path) -> None:
    folder = tuned / "transformer"
    model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True)
    assert model.config.id2label == dict(enumerate(LABELS))
    assert model.config.label2id == {name: index for index, name in enumerate(LABELS)}
    assert model.dtype == torch.float32
    answers = pipeline("text-classification", model=str(folder), top_k=None)("i am so happy")
    loaded = load(tuned, "cpu")
    assert isinstance(loaded, TransformerClassifier)
    assert (loaded.name, loaded.labels) == ("small", LABELS)
    logits = loaded.forward(loaded.encode(["i am so happy"]))
    expected = torch.from_numpy(logits).softmax(dim=1)[0]
    scores = {answer["label"]: answer["score"] for answer in answers[0]}
    assert [scores[name] for name in LABELS] == pytest.approx(expected.tolist(), abs=1e-5)


def test_it_learns(tiny_data: Path, tmp_path: Path, tiny_bert: Path) -> None:
    # Weights as narrow as those of real models, without which it takes long.
    narrow = AutoConfig.from_pretrained(tiny_bert, initializer_range=0.05)
    AutoModelForSequenceClassification.from_config(narrow).save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path / "model")
    shutil.copytree(tiny_data, tmp_path / "data")
    shutil.copy(tmp_path / "data" / "train.csv", tmp_path / "data" / "validation.csv")
    config = small(
        tmp_path / "data", tmp_path, tmp_path / "model", epochs=15, learning_rate=5e-3, patience=15
    )
    run = train(config)
    assert json.loads((run / "evaluation.json").read_text())["macro_f1"] > 0.9
    losses = [record["train_loss"] for record in history(run)]
    assert losses[-1] < losses[0] / 2


def test_saved_weights_are_those_of_the_best_epoch(
    tiny_data: Path, tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after: dict[int, dict[str, Tensor]] = {}

    def keep(self: Any, args: Any, state: Any, *_: Any, model: Any = None, **__: Any) -> None:
        after[round(state.epoch)] = {k: v.clone() for k, v in model.state_dict().items()}

    monkeypatch.setattr(History, "on_save", keep)
    with_scores(monkeypatch, 0.3, 0.6, 0.5)
    run = train(small(tiny_data, tmp_path, tiny_bert, epochs=3))
    assert equal(tensors(run), after[2])
    assert not equal(tensors(run), after[3])


@pytest.mark.parametrize(
    ("patience", "scores", "epochs"),
    [
        (1, (0.5, 0.4), 2),
        (2, (0.5, 0.4, 0.6, 0.5, 0.6), 5),
        (2, (0.5, 0.5, 0.5), 3),
        (9, (0.6, 0.5, 0.4, 0.3, 0.2, 0.1), 6),
    ],
)
def test_training_stops_when_patience_ends(
    tiny_data: Path,
    tmp_path: Path,
    tiny_bert: Path,
    monkeypatch: pytest.MonkeyPatch,
    patience: int,
    scores: tuple[float, ...],
    epochs: int,
) -> None:
    with_scores(monkeypatch, *scores)
    run = train(small(tiny_data, tmp_path, tiny_bert, epochs=6, patience=patience))
    assert [record["epoch"] for record in history(run)] == list(range(1, epochs + 1))
    assert f"epoch {epochs}/6" in (run / "training.log").read_text()


def test_small_split_is_gone_through_until_an_epoch_has_its_steps(
    tiny_data: Path, tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []

    def count(self: Any, args: Any, state: Any, *_: Any, **__: Any) -> None:
        steps.append(state.global_step)

    monkeypatch.setattr(History, "on_save", count)
    # 36 texts in steps of 2 * 8 are 3 steps a pass; 7 steps take 3 passes, 108 texts.
    config = small(
        tiny_data, tmp_path, tiny_bert, epochs=1, min_steps=7, gradient_accumulation_steps=2
    )
    run = train(config)
    assert steps == [7]
    (record,) = history(run)
    assert record["texts_per_second"] * record["seconds"] == pytest.approx(108)


def test_max_length_cuts_and_is_kept(
    tiny_data: Path, tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths: list[int] = []
    compute = fit.SafeTrainer.compute_loss

    def watch(self: Any, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
        widths.append(inputs["input_ids"].shape[1])
        return compute(self, model, inputs, *rest, **more)

    monkeypatch.setattr(fit.SafeTrainer, "compute_loss", watch)
    run = train(small(tiny_data, tmp_path, tiny_bert, epochs=1, max_length=4))
    assert set(widths) == {4}
    tokenizer = AutoTokenizer.from_pretrained(run / "transformer", local_files_only=True)
    assert tokenizer.model_max_length == 4
    assert load(run, "cpu").encode(["i am so happy that the rain is over"])["input_ids"].shape == (
        1,
        4,
    )


def test_max_length_beyond_the_positions_of_the_model_is_cut_to_them(
    tiny_data: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    run = train(small(tiny_data, tmp_path, tiny_bert, epochs=1, max_length=100_000))
    tokenizer = AutoTokenizer.from_pretrained(run / "transformer", local_files_only=True)
    assert tokenizer.model_max_length == 512


def test_texts_are_normalized_as_the_model_wants_them(
    tiny_data: Path, tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_bert, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {NORMALIZER: "loud"}))
    seen: list[str] = []

    def loud(text: str) -> str:
        seen.append(text)
        return text.upper()

    for module in (fit, classifier):
        monkeypatch.setattr(module, "NORMALIZERS", {"loud": loud})
    run = train(small(tiny_data, tmp_path, model, epochs=1))
    # Training texts; and validation texts in training and in the evaluation.
    assert len(seen) == 36 + 12 + 12
    assert json.loads((run / "transformer" / "config.json").read_text())[NORMALIZER] == "loud"


def test_same_seed_gives_the_same_weights_and_another_seed_others(
    tuned: Path, tiny_data: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    again = train(small(tiny_data, tmp_path, tiny_bert, name="again"))
    assert equal(tensors(again), tensors(tuned))
    assert timeless(again) == timeless(tuned)
    other = train(small(tiny_data, tmp_path, tiny_bert, name="other", seed=1))
    assert not equal(tensors(other), tensors(tuned))


def test_model_with_another_number_of_classes_gets_a_new_head(
    tiny_data: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    network = AutoModelForSequenceClassification.from_pretrained(
        tiny_bert, num_labels=5, ignore_mismatched_sizes=True
    )
    network.save_pretrained(tmp_path / "five")
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path / "five")
    run = train(small(tiny_data, tmp_path, tmp_path / "five", epochs=1))
    assert load(run, "cpu").labels == LABELS


def test_fine_tuned_run_is_fine_tuned_further(tuned: Path, tiny_data: Path, tmp_path: Path) -> None:
    run = train(small(tiny_data, tmp_path, tuned, name="", epochs=1))
    kind, data, *moment = run.name.split("-")
    assert (kind, data) == ("small", "moods")
    time.strptime("-".join(moment), "%Y%m%d-%H%M%S")


def test_bf16_on_the_cpu_leaves_weights_in_fp32(
    tuned: Path, tiny_data: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    run = train(small(tiny_data, tmp_path, tiny_bert, precision="bf16"))
    assert not equal(tensors(run), tensors(tuned))
    assert {tensor.dtype for tensor in tensors(run).values()} == {torch.float32}
    assert "in bf16" in (run / "training.log").read_text()


def broken(folder: Path, tiny_bert: Path, how: str) -> Path:
    """A copy of the model with something missing or damaged."""
    shutil.copytree(tiny_bert, folder)
    weights = folder / "model.safetensors"
    if how == "pickled":
        torch.save(load_file(weights), folder / "pytorch_model.bin")
        weights.unlink()
    elif how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "no tokenizer":
        for path in folder.glob("tokenizer*"):
            path.unlink()
    elif how == "no config":
        (folder / "config.json").unlink()
    return folder


@pytest.mark.parametrize("how", ["pickled", "truncated", "no tokenizer", "no config"])
def test_unusable_model_leaves_nothing_behind_and_costs_no_run(
    tuned: Path, tiny_data: Path, tmp_path: Path, tiny_bert: Path, how: str
) -> None:
    model = broken(tmp_path / "model", tiny_bert, how)
    config = small(tiny_data, tmp_path / "outputs", model)
    with pytest.raises(WeightsError) as caught:
        finetune(config, str(model))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "outputs").exists()

    shutil.copytree(tuned, tmp_path / "outputs" / "small")
    before = contents(tmp_path / "outputs")
    with pytest.raises(WeightsError):
        finetune(replace(config, overwrite=True), str(model))
    assert contents(tmp_path / "outputs") == before


def test_bad_data_or_flags_leave_nothing_behind(
    tiny_data: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    outputs = tmp_path / "outputs"
    with pytest.raises(UsageError, match="--precision fp16 needs CUDA"):
        train(small(tiny_data, outputs, tiny_bert, precision="fp16"))
    with pytest.raises(DataError):
        train(small(tmp_path / "nowhere.csv", outputs, tiny_bert))
    with pytest.raises(UsageError, match="no folder here"):
        train(small(tiny_data, outputs, Path("no such model")))
    assert not outputs.exists()


def test_existing_run_is_refused_and_left_as_it_is(
    tuned: Path, tiny_data: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    shutil.copytree(tuned, tmp_path / "small")
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="--overwrite"):
        train(small(tiny_data, tmp_path, tiny_bert))
    assert contents(tmp_path) == before
    run = train(small(tiny_data, tmp_path, tiny_bert, overwrite=True, seed=1))
    assert json.loads((run / "config.json").read_text())["seed"] == 1
    assert not equal(tensors(run), tensors(tuned))


@pytest.mark.parametrize("inside", ["", "transformer"])
def test_model_is_not_overwritten_by_its_own_fine_tuning(
    tuned: Path, tiny_data: Path, tmp_path: Path, inside: str
) -> None:
    shutil.copytree(tuned, tmp_path / "small")
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="--overwrite would delete"):
        train(small(tiny_data, tmp_path, tmp_path / "small" / inside, overwrite=True))
    assert contents(tmp_path) == before


def flags(output_dir: Path, data: Path, model: Path, *more: str) -> list[str]:
    given = {**SMALL, "data": data, "output_dir": output_dir, "model": model}
    return ["finetune", *(f"--{name}={value}" for name, value in given.items()), *more]


def test_verb_prints_results_on_stdout_and_epochs_on_stderr(
    tuned: Path, tiny_data: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "featherweight.cli", *flags(tmp_path, tiny_data, tiny_bert)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert "macro average" in ended.stdout
    assert ended.stdout.endswith(f"\nrun: {tmp_path / 'small'}\n")
    for word in ("{", "epoch", "train_runtime", "eval_"):
        assert word not in ended.stdout
    assert "epoch 2/2" in ended.stderr
    assert "train_runtime" not in ended.stderr
    assert "Traceback" not in ended.stderr
    # Another process computes the same.
    assert equal(tensors(tmp_path / "small"), tensors(tuned))


def test_wrong_use_of_the_verb_is_one_line(
    tiny_data: Path, tmp_path: Path, tiny_bert: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(flags(tmp_path, tiny_data, tiny_bert, "--precision=fp16")) == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[-1].startswith("featherweight: --precision fp16")
    assert "Traceback" not in printed.err


def test_tuning_leaves_the_log_handlers_as_they_were(
    tiny_data: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    before = list(logging.getLogger("featherweight").handlers)
    train(small(tiny_data, tmp_path, tiny_bert, epochs=1))
    assert logging.getLogger("featherweight").handlers == before


def test_two_processes_train_one_model_as_one_with_batches_twice_as_large(
    tiny_data: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_bert, model)
    config = json.loads((model / "config.json").read_text())
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (model / "config.json").write_text(json.dumps(config | still))
    # Cut to one length, the texts are in the same order for any size of a batch.
    one = train(small(tiny_data, tmp_path, model, name="one", batch_size=12, max_length=4))

    # Without --multi_gpu the launcher starts a single process on a machine without GPUs.
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
    launch += ["--num_processes", "2", "--main_process_port", "0", "-m", "featherweight.cli"]
    more = ["--name=two", "--batch_size=6", "--max_length=4"]
    ended = subprocess.run(
        [sys.executable, *launch, *flags(tmp_path, tiny_data, model), *more],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    two = tmp_path / "two"
    assert "2 process(es)" in (two / "training.log").read_text()
    assert ended.stdout.count("macro average") == ended.stdout.count("\nrun: ") == 1
    assert ended.stderr.count("epoch 2/2") == 1
    assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}
    assert load(two, "cpu").labels == LABELS
    for record, expected in zip(history(two), history(one), strict=True):
        assert record["train_loss"] == pytest.approx(expected["train_loss"], abs=1e-4)
        assert record["texts_per_second"] * record["seconds"] == pytest.approx(36)
    for name, expected_tensor in tensors(one).items():
        # Attention is the same whatever these are: their gradients are rounding errors.
        if not name.endswith("key.bias"):
            torch.testing.assert_close(tensors(two)[name], expected_tensor, atol=1e-4, rtol=0)
