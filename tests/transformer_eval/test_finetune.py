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
from tests.helpers.finetuning import (
    flags,
    history,
    history_without_times,
    set_scores,
    small,
    train,
    weights,
)
from transformer_eval import fit, tokenization
from transformer_eval.classifier import NORMALIZER, TransformerClassifier
from transformer_eval.config import FinetuneConfig
from transformer_eval.finetune import finetune
from transformer_eval.safe_trainer import History

ROOT = Path(__file__).parents[2]
LABELS = ("anger", "joy", "sadness")


def tensors(run: Path) -> dict[str, Tensor]:
    return load_file(run / "transformer" / "model.safetensors")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_run_has_the_files_of_an_lstm_run_and_a_model_folder(tuned: Path, tiny_run: Path) -> None:
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


def test_contents_of_the_run_files(tuned: Path, tiny_run: Path, tiny_bert: Path) -> None:
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


def test_history_has_the_format_of_an_lstm(tuned: Path, tiny_run: Path) -> None:
    records = history(tuned)
    assert [record["epoch"] for record in records] == [1, 2]
    assert [list(record) for record in records] == [list(record) for record in history(tiny_run)]
    evaluation = json.loads((tuned / "evaluation.json").read_text())
    best = max(records, key=lambda record: record["validation_macro_f1"])
    assert evaluation["macro_f1"] == pytest.approx(best["validation_macro_f1"])
    for record in records:
        assert record["texts_per_second"] * record["seconds"] == pytest.approx(36)


def test_transformers_loads_the_model_with_class_names(tuned: Path) -> None:
    folder = tuned / "transformer"
    model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True)
    assert model.config.id2label == dict(enumerate(LABELS))
    assert model.config.label2id == {name: index for index, name in enumerate(LABELS)}
    assert model.dtype == torch.float32
    predictions = pipeline("text-classification", model=str(folder), top_k=None)("i am so happy")
    loaded = load(tuned, "cpu")
    assert isinstance(loaded, TransformerClassifier)
    assert (loaded.name, loaded.labels) == ("small", LABELS)
    logits = loaded.forward(loaded.encode(["i am so happy"]))
    expected = torch.from_numpy(logits).softmax(dim=1)[0]
    scores = {prediction["label"]: prediction["score"] for prediction in predictions[0]}
    assert [scores[name] for name in LABELS] == pytest.approx(expected.tolist(), abs=1e-5)


def test_fine_tuning_learns(tiny_data: Path, tmp_path: Path, tiny_bert: Path) -> None:
    # Weights as narrow as those of real models, without which it takes many epochs.
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


@pytest.mark.parametrize(
    ("patience", "scores", "best"),
    [
        (1, (0.3, 0.6, 0.5), 2),
        (2, (0.5, 0.5, 0.5), 1),
        (2, (0.5, 0.4, 0.6, 0.5, 0.6), 3),
    ],
)
def test_training_stops_after_patience_and_saves_the_best_epoch(
    tiny_data: Path,
    tmp_path: Path,
    tiny_bert: Path,
    monkeypatch: pytest.MonkeyPatch,
    patience: int,
    scores: tuple[float, ...],
    best: int,
) -> None:
    after: dict[int, dict[str, Tensor]] = {}

    def keep(self: Any, args: Any, state: Any, *_: Any, model: Any = None, **__: Any) -> None:
        after[round(state.epoch)] = {k: v.clone() for k, v in model.state_dict().items()}

    monkeypatch.setattr(History, "on_save", keep)
    set_scores(monkeypatch, *scores)
    run = train(small(tiny_data, tmp_path, tiny_bert, epochs=6, patience=patience))
    epochs = list(range(1, len(scores) + 1))
    assert [record["epoch"] for record in history(run)] == epochs == list(after)
    assert f"epoch {len(scores)}/6" in (run / "training.log").read_text()
    saved = tensors(run)
    same = [
        epoch
        for epoch, state in after.items()
        if all(torch.equal(saved[name], state[name]) for name in state.keys() | saved.keys())
    ]
    assert same == [best]


def test_small_split_is_repeated_until_an_epoch_has_its_steps(
    tiny_data: Path, tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []

    def count(self: Any, args: Any, state: Any, *_: Any, **__: Any) -> None:
        steps.append(state.global_step)

    monkeypatch.setattr(History, "on_save", count)
    handlers = list(logging.getLogger("featherweight").handlers)
    # 36 texts in steps of 2 * 8 are 3 steps per pass; 7 steps take 3 passes, 108 texts.
    config = small(
        tiny_data, tmp_path, tiny_bert, epochs=1, min_steps=7, gradient_accumulation_steps=2
    )
    run = train(config)
    assert steps == [7]
    (record,) = history(run)
    assert record["texts_per_second"] * record["seconds"] == pytest.approx(108)
    assert logging.getLogger("featherweight").handlers == handlers


def test_max_length_truncates_and_is_stored(
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
    batch = load(run, "cpu").encode(["i am so happy that the rain is over"])
    assert batch["input_ids"].shape == (1, 4)


def test_head_and_maximum_length_are_fitted_to_data_and_model(
    tiny_data: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    network = AutoModelForSequenceClassification.from_pretrained(
        tiny_bert, num_labels=5, ignore_mismatched_sizes=True
    )
    network.save_pretrained(tmp_path / "five")
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path / "five")
    run = train(small(tiny_data, tmp_path, tmp_path / "five", epochs=1, max_length=100_000))
    assert load(run, "cpu").labels == LABELS
    tokenizer = AutoTokenizer.from_pretrained(run / "transformer", local_files_only=True)
    assert tokenizer.model_max_length == 512


def test_texts_are_normalized_for_the_model(
    tiny_data: Path, tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_bert, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {NORMALIZER: "upper"}))
    seen: list[str] = []

    def upper(text: str) -> str:
        seen.append(text)
        return text.upper()

    for module in (fit, tokenization):
        monkeypatch.setattr(module, "NORMALIZERS", {"upper": upper})
    run = train(small(tiny_data, tmp_path, model, epochs=1))
    # Training texts, and validation texts for the Trainer and for the evaluation.
    assert len(seen) == 36 + 12 + 12
    assert json.loads((run / "transformer" / "config.json").read_text())[NORMALIZER] == "upper"


def test_same_seed_gives_the_same_weights(
    tuned: Path, tiny_data: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    again = train(small(tiny_data, tmp_path, tiny_bert, name="again"))
    assert weights(again) == weights(tuned)
    assert history_without_times(again) == history_without_times(tuned)


def test_fine_tuned_run_is_fine_tuned_further(tuned: Path, tiny_data: Path, tmp_path: Path) -> None:
    run = train(small(tiny_data, tmp_path, tuned, name="", epochs=1))
    kind, data, *moment = run.name.split("-")
    assert (kind, data) == ("small", "moods")
    time.strptime("-".join(moment), "%Y%m%d-%H%M%S")


def test_bf16_on_the_cpu_leaves_weights_in_fp32(
    tuned: Path, tiny_data: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    run = train(small(tiny_data, tmp_path, tiny_bert, precision="bf16"))
    assert weights(run) != weights(tuned)
    assert {tensor.dtype for tensor in tensors(run).values()} == {torch.float32}
    assert "in bf16" in (run / "training.log").read_text()


def broken(folder: Path, tiny_bert: Path, damage: str) -> Path:
    """Copies the model with missing or damaged files."""
    shutil.copytree(tiny_bert, folder)
    weights_file = folder / "model.safetensors"
    if damage == "pickled":
        torch.save(load_file(weights_file), folder / "pytorch_model.bin")
        weights_file.unlink()
    elif damage == "truncated":
        weights_file.write_bytes(weights_file.read_bytes()[:-100])
    elif damage == "no tokenizer":
        for path in folder.glob("tokenizer*"):
            path.unlink()
    elif damage == "no config":
        (folder / "config.json").unlink()
    return folder


@pytest.mark.parametrize("damage", ["pickled", "truncated", "no tokenizer", "no config"])
def test_unusable_model_leaves_no_files_and_overwrites_no_run(
    tuned: Path, tiny_data: Path, tmp_path: Path, tiny_bert: Path, damage: str
) -> None:
    model = broken(tmp_path / "model", tiny_bert, damage)
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


def test_wrong_data_or_flags_leave_no_files(
    tiny_data: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    outputs = tmp_path / "outputs"
    with pytest.raises(UsageError, match="--precision fp16 needs CUDA"):
        train(small(tiny_data, outputs, tiny_bert, precision="fp16"))
    with pytest.raises(DataError):
        train(small(tmp_path / "nowhere.csv", outputs, tiny_bert))
    with pytest.raises(UsageError, match="is not a folder"):
        train(small(tiny_data, outputs, Path("no such model")))
    assert not outputs.exists()


def test_existing_run_is_replaced_only_with_overwrite(
    tuned: Path, tiny_data: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    shutil.copytree(tuned, tmp_path / "small")
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="--overwrite"):
        train(small(tiny_data, tmp_path, tiny_bert))
    assert contents(tmp_path) == before
    run = train(small(tiny_data, tmp_path, tiny_bert, overwrite=True, seed=1))
    assert json.loads((run / "config.json").read_text())["seed"] == 1
    assert weights(run) != weights(tuned)


@pytest.mark.parametrize("inside", ["", "transformer"])
def test_run_does_not_overwrite_the_model_it_starts_from(
    tuned: Path, tiny_data: Path, tmp_path: Path, inside: str
) -> None:
    shutil.copytree(tuned, tmp_path / "small")
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="--overwrite would delete"):
        train(small(tiny_data, tmp_path, tmp_path / "small" / inside, overwrite=True))
    assert contents(tmp_path) == before


def test_wrong_flags_are_reported_in_one_line(
    tiny_data: Path, tmp_path: Path, tiny_bert: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(flags(tmp_path, tiny_data, tiny_bert, "--precision=fp16")) == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[-1].startswith("featherweight: --precision fp16")
    assert "Traceback" not in printed.err


def test_two_processes_train_like_one_with_batches_twice_as_large(
    tiny_data: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_bert, model)
    config = json.loads((model / "config.json").read_text())
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (model / "config.json").write_text(json.dumps(config | no_dropout))
    # Truncated to one length, the texts have the same order for any batch size.
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
        # The attention does not depend on these: their gradients are rounding errors.
        if not name.endswith("key.bias"):
            torch.testing.assert_close(tensors(two)[name], expected_tensor, atol=1e-4, rtol=0)
