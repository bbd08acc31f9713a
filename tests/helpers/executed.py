"""Executes a notebook as a user's papermill does, in a folder of its own, and reads the pages."""

import base64
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from nbformat import NotebookNode

ROOT = Path(__file__).parents[2]
NOTEBOOKS = (ROOT / "EDA.ipynb", ROOT / "notebooks" / "transformer_walkthrough.ipynb")


def executed(notebook: Path, folder: Path, **parameters: Any) -> NotebookNode:
    """Returns a notebook with its outputs; nothing outside the folder is written or known.

    Raises:
        PapermillExecutionError: A cell failed.
    """
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as environment:
        for variable in ("IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR"):
            place = folder / ".jupyter" / variable.lower()
            place.mkdir(parents=True, exist_ok=True)
            environment.setenv(variable, str(place))
        environment.setenv("JUPYTER_PREFER_ENV_PATH", "1")
        environment.setenv("OMP_NUM_THREADS", "1")
        environment.setenv("HF_HUB_OFFLINE", "1")
        environment.delenv("PYTHONPATH", raising=False)  # the package is found by its installation
        papermill.execute_notebook(
            notebook,
            folder / notebook.name,
            {name: as_flag(value) for name, value in parameters.items()},
            cwd=folder,
            progress_bar=False,
        )
    return nbformat.read(folder / notebook.name, 4)


def as_flag(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def outputs(page: NotebookNode, cell: str | None = None) -> list[NotebookNode]:
    """Returns what the cells, or the one of a name, put out."""
    chosen = [it for it in page.cells if it.cell_type == "code" and cell in (None, it.id)]
    assert chosen, cell
    return [output for it in chosen for output in it.outputs]


def said(page: NotebookNode, cell: str | None = None) -> str:
    """Returns all texts of the outputs: streams, Markdown and tables."""
    texts = []
    for output in outputs(page, cell):
        data = output.get("data", {})
        texts += [output.get("text", ""), data.get("text/markdown", ""), data.get("text/html", "")]
    return "\n".join(filter(None, texts))


def pictures(page: NotebookNode, cell: str | None = None) -> list[bytes]:
    found = [output.get("data", {}).get("image/png") for output in outputs(page, cell)]
    return [base64.b64decode(picture) for picture in found if picture]


def warnings(page: NotebookNode) -> str:
    """Returns what a reader would see on red ground."""
    return "".join(it.text for it in outputs(page) if it.get("name") == "stderr")
