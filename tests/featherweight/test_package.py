"""The package as users import it: public names, version, old module names, shadowed packages."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import featherweight
from featherweight.moved import MOVED

ROOT = Path(__file__).parents[2]
PACKAGES = ("featherweight", "lstm", "transformer_eval", "compress", "edge")
PUBLIC_NAMES = {
    "Classifier", "DataConfig", "FeatherweightError", "evaluate", "load", "load_dataset",
    "quality_table", "run_inference",
}  # fmt: skip


def python(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Runs an interpreter in a folder, which comes before this project on the import path."""
    path = {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True, text=True, check=False, cwd=folder,
        env=os.environ | path,
    )  # fmt: skip


def in_project_file(pattern: str) -> str:
    match = re.search(pattern, (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert match is not None
    return match[1]


VERSION = in_project_file(r'^version = "(.+)"$')


def test_public_names() -> None:
    assert set(dir(featherweight)) == {*PUBLIC_NAMES, "__version__"}
    assert set(featherweight.__all__) == PUBLIC_NAMES
    assert all(callable(getattr(featherweight, name)) for name in PUBLIC_NAMES)
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        _ = featherweight.missing


def test_version_is_that_of_the_project() -> None:
    assert featherweight.__version__ == VERSION


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "featherweight"],
        ["-c", "import sys; from featherweight.cli import main; sys.exit(main())"],  # the script
    ],
)
def test_commands_print_the_version(command: list[str]) -> None:
    process = python(*command, "--version")
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout == f"featherweight {VERSION}\n"


def test_console_script_calls_main() -> None:
    module, _, function = in_project_file(r'^featherweight = "(.+)"$').partition(":")
    from featherweight.cli import main

    assert getattr(importlib.import_module(module), function) is main


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_old_module_name_is_the_same_module(old: str, new: str) -> None:
    module = importlib.import_module(old)
    assert module is importlib.import_module(new)
    assert module.__name__ == new
    assert module.__spec__ is not None
    assert (module.__spec__.name, module.__spec__.origin) == (new, module.__file__)
    package, _, name = old.rpartition(".")
    assert getattr(importlib.import_module(package), name) is module


def test_old_module_name_is_found_before_featherweight_is_imported() -> None:
    code = "from importlib.util import find_spec; assert find_spec('compress.pruning')"
    process = python("-c", code)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("package", PACKAGES[1:])
@pytest.mark.parametrize("code", ["import featherweight", "import {}, featherweight"])
def test_file_that_shadows_a_package_is_named(tmp_path: Path, package: str, code: str) -> None:
    file = tmp_path / f"{package}.py"
    file.write_text("")
    process = python("-c", code.format(package), folder=tmp_path)
    assert process.returncode == 1
    line = process.stderr.splitlines()[-1]
    assert line.startswith(f"ImportError: {file} ")
    assert "rename that file" in line


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()
