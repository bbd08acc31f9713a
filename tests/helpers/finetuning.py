"""Fine-tunes tiny models and reads their runs."""

import json
from pathlib import Path
from typing import Any

import pytest

from transformer_eval import fit
from transformer_eval.config import FinetuneConfig
from transformer_eval.finetune import finetune

SMALL: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 8,  # 5 steps per epoch
    "learning_rate": 1e-3,
    "precision": "fp32",
    "device": "cpu",
    "name": "small",
}


def small(data: Path, output_dir: Path, model: Path, **changes: Any) -> FinetuneConfig:
    values = {"data": str(data), "output_dir": output_dir, "model": [str(model)], **changes}
    return FinetuneConfig(**{**SMALL, **values})


def flags(output_dir: Path, data: Path, model: Path, *more: str) -> list[str]:
    """Returns the command line of `small`."""
    values = {**SMALL, "data": data, "output_dir": output_dir, "model": model}
    return ["finetune", *(f"--{name}={value}" for name, value in values.items()), *more]


def train(config: FinetuneConfig) -> Path:
    """Returns the folder of a new run."""
    result = finetune(config, config.model[0])
    assert result is not None
    return result[0].path


def weights(run: Path) -> bytes:
    return (run / "transformer" / "model.safetensors").read_bytes()


def history(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


def history_without_times(run: Path) -> list[dict[str, Any]]:
    times = ("seconds", "texts_per_second")
    return [{k: v for k, v in record.items() if k not in times} for record in history(run)]


def set_scores(monkeypatch: pytest.MonkeyPatch, *scores: float) -> None:
    """Replaces the validation macro-F1 of the next epochs."""
    remaining = iter(scores)
    names = ("validation_loss", "validation_accuracy", "validation_macro_f1")
    monkeypatch.setattr(fit, "validation_scores", lambda *_: dict.fromkeys(names, next(remaining)))
