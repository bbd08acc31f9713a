"""The benchmark programs are scripts: they are imported as Python finds them when it runs one."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Program = Callable[[str], ModuleType]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Program:
    """Imports a module of benchmarks/ by its name."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module
