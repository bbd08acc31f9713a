"""A portable file, and a check that nothing is unpickled."""

import pickle
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
import torch._dynamo  # imported before pickle is patched, since it subclasses unpicklers

from tests.helpers.tiny_lstm import make_classifier


@pytest.fixture
def nothing_is_unpickled(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("something was unpickled")

    for name in ("Unpickler", "load", "loads"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)


@pytest.fixture
def portable(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    make_classifier().save(path)
    return path
