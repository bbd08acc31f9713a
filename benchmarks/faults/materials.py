"""The data, runs, bundles and interrupted outputs that are broken, made once in a folder."""

import csv
import os
import shutil
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from faults.commands import Arguments, kill_at, run, run_recorded

from featherweight.comparison import compare
from featherweight.data.dataset import DataConfig, Dataset, Split, load_dataset
from featherweight.prediction import resumable_file
from transformer_eval.random_weights import build
from transformer_eval.registry import Pretrained

TEXTS = ("so happy today", "i miss my dog", "i hate this queue", "what a surprise!!! 😂", "")
_SIZES = {"train": 160, "validation": 48, "test": 48}
_ROWS, _MANY_ROWS = 6_000, 4_500  # of the files to predict; the second one is for workers
_BERT = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
    "vocab_size": 600, "initializer_range": 0.5,
}  # fmt: skip
NAME = "mine"  # of every run


class Materials:
    """Paths in a folder; `make` writes them.

    Attributes:
        data: Folder of a small data set.
        bert: Folder of a tiny transformer with random weights.
        lstm: A finished run with an int8 variant.
        transformer: A finished run of the transformer.
        bundle: The bundle of the LSTM.
        zipped: The same as a zip file.
        rows: A file to predict.
        many_rows: A file so large that worker processes predict it.
        old: Folder of what is overwritten: other results of each command.
        cut: Folder of what is resumed: a run of each kind, and a predictions file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data, self.bert = folder / "data", folder / "bert"
        self.lstm, self.transformer = folder / "lstm" / NAME, folder / "transformer" / NAME
        self.bundle, self.zipped = folder / "bundle", folder / "bundle.zip"
        self.rows, self.many_rows = folder / "rows.csv", folder / "many_rows.csv"
        self.old, self.cut = folder / "old", folder / "cut"

    def train(self, output_dir: Path, *flags: object) -> Arguments:
        """Returns the command that trains the LSTM."""
        return [
            "train", "--data", self.data, "--output_dir", output_dir, "--name", NAME,
            "--embedding_dim", 8, "--hidden_dim", 8, "--epochs", 3, "--min_steps", 1,
            "--batch_size", 16, "--min_frequency", 1, "--learning_rate", 0.03, "--device", "cpu",
            *flags,
        ]  # fmt: skip

    def finetune(self, output_dir: Path, *flags: object) -> Arguments:
        """Returns the command that fine-tunes the transformer."""
        return [
            "finetune", "--data", self.data, "--model", self.bert, "--output_dir", output_dir,
            "--name", NAME, "--epochs", 2, "--batch_size", 32, "--learning_rate", 1e-3,
            "--precision", "fp32", "--device", "cpu", *flags,
        ]  # fmt: skip

    def predict(self, output: Path, *flags: object) -> Arguments:
        """Returns the command that predicts a file with the bundle."""
        return [
            "predict", "--weights", self.bundle, "--csv", self.rows, "--output_path", output,
            *flags,
        ]  # fmt: skip

    def prune(self, run: Path, *flags: object) -> Arguments:
        """Returns the command that prunes and retrains the LSTM."""
        return [
            "compress", "--weights", run, "--method", "prune", "--retraining_epochs", 2,
            "--max_f1_drop", 1, "--device", "cpu", *flags,
        ]  # fmt: skip

    def export(self, output: Path, *flags: object) -> Arguments:
        """Returns the command that writes the bundle."""
        return ["export", "--weights", self.lstm, "--output_path", output, *flags]

    def compare(self, output: Path, *flags: object) -> Arguments:
        """Returns the command that compares the run with its bundle."""
        return ["compare", self.lstm, self.bundle, "--output_path", output, *flags]


def prepare_process() -> None:
    """Sets what all child processes inherit.

    Every batch of predictions is recorded, not only one per second, and nothing is timed: timing
    takes most of the time of a comparison and is written at its end.
    """
    torch.set_num_threads(1)
    resumable_file._RECORD_SECONDS = 0.0  # type: ignore[misc]
    compare.measure = lambda *_, **__: []  # type: ignore[assignment]


def make(folder: Path) -> tuple[Materials, Dataset]:
    """Writes the materials into a folder; returns them and the data set."""
    made = Materials(folder)
    corpus = load_dataset(DataConfig())
    for split in corpus.splits:
        _write_rows(made.data / f"{split.name}.csv", split, corpus.labels, _SIZES[split.name])
    _write_rows(made.rows, corpus.train, corpus.labels, _ROWS)
    _write_rows(made.many_rows, corpus.train, corpus.labels, _MANY_ROWS, "n" * 1_000)
    for path in (made.old, made.cut / "predictions"):
        path.mkdir(parents=True)
    _in_children(lambda: _make_lstms(made), lambda: _make_transformers(made, corpus))
    return made, load_dataset(DataConfig(data=str(made.data)))


def _make_lstms(made: Materials) -> None:
    log, old = made.folder / "lstm-log", made.old / "lstm" / NAME
    for arguments in (
        made.train(made.lstm.parent),
        ["compress", "--weights", made.lstm, "--method", "int8", "--max_f1_drop", 1],
        made.export(made.bundle),
        made.export(made.zipped),
        made.train(old.parent, "--seed", 1),
        made.prune(old, "--sparsity", 0.7),
        ["export", "--weights", old, "--output_path", made.old / "bundle"],
        ["export", "--weights", old, "--output_path", made.old / "bundle.zip"],
        made.predict(made.old / "out.csv", "--known_words"),
        ["compare", old, "--output_path", made.old / "report"],
    ):
        run(arguments, log).require_success()
    folder = made.cut / "lstm"
    _kill_after_second("checkpoint.safetensors", folder, made.train(folder), log)
    output = made.cut / "predictions" / "out.csv"
    _kill_after_second("out.csv.progress", output.parent, made.predict(output), log)


def _make_transformers(made: Materials, corpus: Dataset) -> None:
    model = Pretrained("acme/tiny", "bert", _BERT)
    _in_children(lambda: build(model, corpus.train.texts, corpus.labels, made.bert))
    log, folder = made.folder / "transformer-log", made.cut / "transformer"
    run(made.finetune(made.transformer.parent), log).require_success()
    run(made.finetune(made.old / "transformer", "--seed", 1), log).require_success()
    _kill_after_second("trainer_state.json", folder, made.finetune(folder), log)


def _kill_after_second(written: str, folder: Path, arguments: Arguments, log: Path) -> None:
    """Kills a command just after it has written a file for the second time."""
    answer, changes = run_recorded(folder, arguments, log)
    answer.require_success()
    shutil.rmtree(folder)
    folder.mkdir()
    _, second, *_ = (
        number
        for number, change in enumerate(changes)
        if change.endswith(written) or change.endswith(f"{written} w")
    )
    kill_at(second + 1, folder, arguments, log)


def _write_rows(
    path: Path, split: Split, labels: Sequence[str], count: int, note: str = "none"
) -> None:
    """Writes the first texts of a split, again from its start if there are not enough."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "note"])
        for row in range(count):
            index = row % len(split)
            writer.writerow([split.texts[index], labels[split.labels[index]], note])


def _in_children(*functions: Callable[[], None]) -> None:
    """Calls functions in child processes at once, so that this one starts no threads."""
    for pid in [_forked(function) for function in functions]:
        _, status = os.waitpid(pid, 0)
        if status:
            raise RuntimeError("the materials cannot be made")


def _forked(function: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        function()
        code = 0
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(code)
