"""Nothing is imported from the current folder, also by the processes that a command starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge.config import ExportConfig
from edge.export import export

POISONED = (
    "json", "pickle", "numpy", "csv", "random", "tempfile", "signal", "queue", "onnxruntime",
    "tokenizers", "featherweight", "sitecustomize",
)  # fmt: skip
# As the console script: the path is set before anything is imported that is not loaded already.
COMMAND = """
import os, sys
sys.path[:] = [entry for entry in sys.path if entry]
os.sched_getaffinity = lambda _: {0, 1}
from featherweight.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with modules that leave a trace when they are imported."""
    folder = tmp_path / "download"
    folder.mkdir()
    for name in POISONED:
        trace = tmp_path / f"{name} was imported"
        (folder / f"{name}.py").write_text(f"open({str(trace)!r}, 'w').close()\n")
    return folder


@pytest.fixture(scope="module")
def bundle(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(ExportConfig(tiny_run, tmp_path_factory.mktemp("bundles") / "bundle"))


def traces(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.parent.glob("*was imported"))


def run(folder: Path, *arguments: object) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, check=False,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_folder_is_poisonous(folder: Path) -> None:
    """Otherwise the tests below would show nothing."""
    subprocess.run([sys.executable, "-c", "import json, pickle"], cwd=folder, check=True)
    assert traces(folder) == ["json was imported", "pickle was imported"]


def test_processes_that_time_models(folder: Path, tiny_run: Path, bundle: Path) -> None:
    report = folder.with_name("report")
    run(folder, "compare", tiny_run, bundle, "--batch_sizes", "1", "--output_path", report)
    assert traces(folder) == []


def test_processes_that_predict(folder: Path, bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("text,note\n" + f"so happy,{'n' * 1_000}\n" * 4_500)
    run(folder, "predict", "--weights", bundle, "--csv", path)
    assert path.with_name("in_predictions.csv").read_text().count("\n") == 4_501
    assert traces(folder) == []
