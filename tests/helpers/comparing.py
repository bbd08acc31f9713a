"""Runs `test_transformer` on tiny models."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from featherweight.data.dataset import DataConfig, load_dataset
from featherweight.errors import FeatherweightError, UsageError
from featherweight.run import TRANSFORMER, Run
from transformer_eval import test_transformer
from transformer_eval.config import TransformerTestConfig

BASELINES = ["most frequent class", "TF-IDF + linear SVM"]
LABELS = ("sadness", "anger", "joy")
NUMBERED = {index: f"LABEL_{index}" for index in range(3)}
Record = dict[str, Any]


def compared(
    *models: Path | str, data: Path | str, lstms: Sequence[Path] = (), **flags: Any
) -> Record:
    values = {"model": [*map(str, models)], "data": str(data), "device": "cpu"} | flags
    return test_transformer.test_transformer(TransformerTestConfig(**values), lstms)[0]


def refusal(
    *models: Path | str, data: Path | str, kind: type[FeatherweightError] = UsageError, **flags: Any
) -> str:
    with pytest.raises(kind) as error:
        compared(*models, data=data, **flags)
    assert "\n" not in str(error.value)
    return str(error.value)


def names(record: Record) -> list[str]:
    return [row["model"] for row in record["rows"]]


def copied(origin: Path, folder: Path, **entries: Any) -> Path:
    """Copies a model and changes entries of its config."""
    shutil.copytree(origin, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | entries))
    return folder


def finetuned_run(model: Path, data: Path, path: Path) -> Path:
    """Creates the files of a `finetune` run that `test_transformer` reads."""
    shutil.copytree(model, path / TRANSFORMER)
    Run(path).write_json("config.json", {"model": ["bert"], **asdict(DataConfig(data=str(data)))})
    Run(path).write_json("data.json", load_dataset(DataConfig(data=str(data))).identity())
    return path
