"""Bundles of the tiny run, and the environment for subprocesses."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from edge.config import ExportConfig
from edge.export import export


@pytest.fixture(scope="session")
def exported(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A read-only folder."""
    return export(ExportConfig(tiny_run, tmp_path_factory.mktemp("bundles") / "bundle"))


@pytest.fixture(scope="session")
def exported_zip(tiny_run: Path, exported: Path) -> Path:
    return export(ExportConfig(tiny_run, exported.with_suffix(".zip")))


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Path:
    """A folder to modify."""
    return Path(shutil.copytree(exported, tmp_path / "copied"))


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Environment variables with which a subprocess has this process's import path."""
    return {**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
