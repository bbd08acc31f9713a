"""The notebooks are stored without outputs and without anything specific to a machine."""

import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

from tests.helpers.executed import NOTEBOOKS, executed, output_text

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def stored(path: Path) -> NotebookNode:
    page = nbformat.read(path, 4)
    nbformat.validate(page)
    return page


@each_notebook
def test_notebook_is_stored_without_outputs(path: Path) -> None:
    cells = [cell for cell in stored(path).cells if cell.cell_type == "code"]
    assert len(cells) > 5
    assert [cell.id for cell in cells if cell.outputs or cell.execution_count is not None] == []
    # Papermill and editors also write times and results to the metadata.
    assert {key for cell in stored(path).cells for key in cell.metadata} == {"tags"}


@each_notebook
def test_notebook_contains_no_local_path(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert str(Path.home()) not in text
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users|mnt|opt|var)\b|[A-Z]:\\", text)


@each_notebook
def test_parameters_are_one_cell_with_a_comment_each(path: Path) -> None:
    (cell,) = [cell for cell in stored(path).cells if "parameters" in cell.metadata.get("tags", [])]
    for line in cell.source.splitlines():
        assert re.fullmatch(r"\w+ = .+  # .+", line), line


@each_notebook
def test_notebook_runs_with_any_python_kernel(path: Path) -> None:
    kernel = stored(path).metadata.kernelspec
    assert (kernel.name, kernel.language) == ("python3", "python")


def test_kernel_is_the_python_that_runs_the_tests(tmp_path: Path) -> None:
    page = new_notebook(cells=[new_code_cell("import sys\nprint(sys.prefix)")])
    page.metadata = stored(NOTEBOOKS[0]).metadata
    nbformat.write(page, tmp_path / "where.ipynb")

    assert output_text(executed(tmp_path / "where.ipynb", tmp_path / "out")).strip() == sys.prefix


@each_notebook
def test_lines_of_code_are_not_too_long(path: Path) -> None:
    cells = [cell for cell in stored(path).cells if cell.cell_type == "code"]
    assert [line for cell in cells for line in cell.source.splitlines() if len(line) > 100] == []
