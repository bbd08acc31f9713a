"""The notebooks as they are stored: without outputs, and for any machine."""

import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

from tests.helpers.executed import NOTEBOOKS, executed, said

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def stored(path: Path) -> NotebookNode:
    page = nbformat.read(path, 4)
    nbformat.validate(page)
    return page


@each_notebook
def test_it_is_stored_without_outputs(path: Path) -> None:
    cells = [cell for cell in stored(path).cells if cell.cell_type == "code"]
    assert len(cells) > 5
    assert [cell.id for cell in cells if cell.outputs or cell.execution_count is not None] == []
    # Papermill and editors leave times and results in the metadata as well.
    assert {key for cell in stored(path).cells for key in cell.metadata} == {"tags"}


@each_notebook
def test_it_names_no_place_on_a_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert str(Path.home()) not in text
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users|mnt|opt|var)\b|[A-Z]:\\", text)


@each_notebook
def test_its_parameters_are_one_cell_of_explained_names(path: Path) -> None:
    (cell,) = [it for it in stored(path).cells if "parameters" in it.metadata.get("tags", [])]
    for line in cell.source.splitlines():
        assert re.fullmatch(r"\w+ = .+  # .+", line), line


@each_notebook
def test_any_kernel_of_this_python_will_do(path: Path) -> None:
    kernel = stored(path).metadata.kernelspec
    assert (kernel.name, kernel.language) == ("python3", "python")


def test_that_kernel_is_the_python_that_runs_this(tmp_path: Path) -> None:
    page = new_notebook(cells=[new_code_cell("import sys\nprint(sys.prefix)")])
    page.metadata = stored(NOTEBOOKS[0]).metadata
    nbformat.write(page, tmp_path / "where.ipynb")

    assert said(executed(tmp_path / "where.ipynb", tmp_path / "out")).strip() == sys.prefix


@each_notebook
def test_no_line_of_code_is_longer_than_elsewhere(path: Path) -> None:
    cells = [cell for cell in stored(path).cells if cell.cell_type == "code"]
    assert [line for cell in cells for line in cell.source.splitlines() if len(line) > 100] == []
