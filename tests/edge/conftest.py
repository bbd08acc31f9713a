"""A bundle of the tiny run, as a folder and as a zip file."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from edge.config import ExportConfig
from edge.export import export


@pytest.fixture(scope="session")
def exported(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is only read."""
    path = tmp_path_factory.mktemp("bundles") / "bundle"
    return export(ExportConfig(tiny_run, path))


@pytest.fixture(scope="session")
def exported_zip(tiny_run: Path, exported: Path) -> Path:
    return export(ExportConfig(tiny_run, exported.with_suffix(".zip")))


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Path:
    """A folder to break."""
    return Path(shutil.copytree(exported, tmp_path / "copied"))


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a fresh interpreter that finds what this one finds."""
    return {**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))}
