"""The run directory, which holds the results of one training. Files are written atomically."""

import json
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from featherweight.disk.atomic import (
    atomic_directory,
    atomic_open,
    recover,
    recover_all,
    replace_directory,
)
from featherweight.errors import UsageError, WeightsError, first_line

logger = logging.getLogger("featherweight")

MODEL = "model.safetensors"
CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
DATA = "data.json"  # name, labels and hashes of the training data
CHECKPOINT = "checkpoint.safetensors"
COMPRESSION = "compression.json"  # of a compressed run: method, flags and original run
TRANSFORMER = "transformer"  # folder of a fine-tuned transformer, written by `transformers`
CHECKPOINTS = "checkpoints"  # folder of its training checkpoints
ONNX = "onnx"  # folder of an exported model
ONNX_MODEL = "model.onnx"
ONNX_FACTS = "onnx.json"  # identifies it; models on the Hub also have folders named "onnx"
# Of the training, on validation; those of a later evaluation are named `of_split`.
EVALUATION = "evaluation.json"
PREDICTIONS = "predictions.csv"
CONFUSION = "confusion_matrix.png"

_REPLACEMENT = re.compile(r"\.(.+)\.overwrite")  # name of a run that is to replace another


class Run:
    """The run directory at `path`.

    A training with --overwrite writes a hidden folder next to the old run, `.NAME.overwrite`.
    `path` becomes that of the old run when the new one takes its place.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(
        cls, output_dir: Path, name: str, overwrite: bool, records: Mapping[str, Any]
    ) -> "Run":
        """Creates a run directory with its first JSON files, all at once.

        If it exists and may be overwritten, the new run is to replace it; see `take_place`.

        Raises:
            UsageError: The directory exists, and `overwrite` is off or it is not a run; or the
                name is not UTF-8, as files of the run require.
        """
        path = output_dir / name
        if name != name.encode(errors="replace").decode():
            raise UsageError(f"the run's name {name} is not UTF-8: give another --name")
        recover(path)
        if path.exists() and not overwrite:
            raise UsageError(
                f"{path} already exists: choose another --name, "
                "or give --overwrite to replace it or --resume to continue it"
            )
        missing = [file for file in records if not (path / file).is_file()]
        if path.exists() and missing:
            raise UsageError(f"{path} is not a run ({missing[0]} is missing): not overwritten")
        new = cls(path).replacement if path.exists() else cls(path)
        with atomic_directory(new.path) as folder:
            for file, value in records.items():
                cls(folder).write_json(file, value)
        return new

    @property
    def final(self) -> Path:
        """Where the run is when it is finished."""
        match = _REPLACEMENT.fullmatch(self.path.name)
        return self.path.with_name(match[1]) if match else self.path

    @property
    def replacement(self) -> "Run":
        """The run that is to replace this one; it exists only while it is trained."""
        return Run(self.path.with_name(f".{self.path.name}.overwrite"))

    def take_place(self) -> None:
        """Replaces the old run, if there is one."""
        if self.path != self.final:
            replace_directory(self.final, self.path)
            self.path = self.final

    def file(self, name: str) -> Path:
        """Returns the path of a file in the run."""
        return self.path / name

    @property
    def finished(self) -> bool:
        """Whether the training is finished: weights and no checkpoint; pictures do not count."""
        return not self.cut_off and self.weights is not None

    @property
    def cut_off(self) -> bool:
        """Whether the training was interrupted and left a checkpoint."""
        return self.file(CHECKPOINT).exists() or self.file(CHECKPOINTS).exists()

    @property
    def exported(self) -> bool:
        """Whether the run has an ONNX graph that featherweight exported."""
        return (self.file(ONNX) / ONNX_FACTS).is_file()

    @property
    def weights(self) -> Path | None:
        """The file of the trained or exported weights, or None."""
        if self.exported:
            path = self.file(ONNX) / ONNX_MODEL
            return path if path.is_file() else None
        paths = self.file(TRANSFORMER) / MODEL, self.file(MODEL)
        return next((path for path in paths if path.is_file()), None)

    def write_text(self, name: str, text: str) -> None:
        """Writes a text file."""
        with atomic_open(self.file(name)) as file:
            file.write(text)

    def write_bytes(self, name: str, data: bytes) -> None:
        """Writes a binary file."""
        with atomic_open(self.file(name), "wb") as file:
            file.write(data)

    def write_json(self, name: str, value: Any) -> None:
        """Writes an indented JSON file."""
        self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")

    def read_json(self, name: str) -> Any:
        """Reads a JSON file.

        Raises:
            WeightsError: The file is missing or not JSON.
        """
        try:
            return json.loads(self.file(name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise WeightsError(f"{self.path} has no {name}: is it a run directory?") from None
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise WeightsError(
                f"{self.file(name)} is not JSON ({first_line(error)}): train again"
            ) from None


def of_split(name: str, split: str) -> str:
    """Returns the name of a file about one split: evaluation-test.json for evaluation.json."""
    path = PurePath(name)
    return f"{path.stem}-{split}{path.suffix}" if split else name


def kind(config: Mapping[str, Any]) -> str:
    """Returns what a run's config was trained as: "lstm", "features" or "transformer".

    Runs of version 0.1 do not record it, but each kind has keys of its own.
    """
    if "kind" in config:
        return str(config["kind"])
    if "preset" in config:
        return "lstm"
    return "features" if "pooling" in config else "transformer"


def without_folders(value: Any) -> Any:
    """Returns a JSON value with each absolute path, also in lists, replaced by its last part."""
    if isinstance(value, list):
        return [without_folders(item) for item in value]
    # This class parses the paths of every system: a run may have moved between two.
    is_absolute = isinstance(value, str) and PureWindowsPath(value).root
    return PureWindowsPath(value).name if is_absolute else value


def runs(output_dir: Path) -> list[Run]:
    """Returns all runs in a folder, finished or not, the newest last."""
    recover_all(output_dir)
    # Names with a dot belong to incomplete folders of killed processes.
    configs = sorted(output_dir.glob(f"[!.]*/{CONFIG}"), key=lambda path: path.stat().st_mtime)
    return [Run(path.parent) for path in configs]


def cut_off_runs(output_dir: Path) -> list[Run]:
    """Returns the unfinished runs in a folder, also those that are to replace others."""
    replacements = [run.replacement for run in runs(output_dir)]
    found = [run for run in (*runs(output_dir), *replacements) if run.file(CONFIG).is_file()]
    unfinished = [run for run in found if not run.finished]
    return sorted(unfinished, key=lambda run: run.file(CONFIG).stat().st_mtime)


def newest_run(output_dir: Path) -> Run:
    """Returns the newest finished run, and logs which one.

    Raises:
        UsageError: There is none.
    """
    finished = [run for run in runs(output_dir) if run.finished]
    if not finished:
        raise UsageError(f"no finished run in {output_dir}: run train, or give --weights")
    _log_choice(finished[-1])
    return finished[-1]


def newest_lstm(output_dir: Path) -> Path | None:
    """Returns the newest finished LSTM run, and logs which one; None if there is none."""
    for run in reversed(runs(output_dir)):
        if run.finished and kind(run.read_json(CONFIG)) == "lstm":
            _log_choice(run)
            return run.path
    return None


def _log_choice(run: Run) -> None:
    """Logs a run that was chosen without being named, with its data and its score."""
    facts = []
    with suppress(WeightsError, KeyError, TypeError, ValueError):  # a file is missing or damaged
        facts.append(f"trained on {run.read_json(DATA)['name']}")
    with suppress(WeightsError, KeyError, TypeError, ValueError):
        scores = run.read_json(EVALUATION)
        facts.append(f"{scores['split']} macro-F1 {scores['macro_f1']:.2f}")
    about = f" ({', '.join(facts)})" if facts else ""
    logger.info("weights: %s%s", run.path, about)
