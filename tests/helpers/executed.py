"""Executes a notebook with papermill in a folder of its own, and reads its outputs."""

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
    """Returns a notebook with its outputs; files outside the folder are neither read nor written.

    Raises:
        PapermillExecutionError: A cell failed.
    """
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as environment:
        for variable in ("IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR"):
            settings = folder / ".jupyter" / variable.lower()
            settings.mkdir(parents=True, exist_ok=True)
            environment.setenv(variable, str(settings))
        environment.setenv("JUPYTER_PREFER_ENV_PATH", "1")
        environment.setenv("OMP_NUM_THREADS", "1")
        environment.setenv("HF_HUB_OFFLINE", "1")
        environment.setenv("PYTHONPATH", str(ROOT))  # the kernel imports this checkout
        papermill.execute_notebook(
            notebook,
            folder / notebook.name,
            {
                name: str(value) if isinstance(value, Path) else value
                for name, value in parameters.items()
            },
            cwd=folder,
            progress_bar=False,
        )
    return nbformat.read(folder / notebook.name, 4)


def outputs(page: NotebookNode, cell: str | None = None) -> list[NotebookNode]:
    """Returns the outputs of all code cells, or of one cell."""
    cells = [code for code in page.cells if code.cell_type == "code" and cell in (None, code.id)]
    assert cells, cell
    return [output for code in cells for output in code.outputs]


def output_text(page: NotebookNode, cell: str | None = None) -> str:
    """Returns the texts of the outputs: streams, Markdown and tables."""
    texts = []
    for output in outputs(page, cell):
        data = output.get("data", {})
        texts += [output.get("text", ""), data.get("text/markdown", ""), data.get("text/html", "")]
    return "\n".join(filter(None, texts))


def pictures(page: NotebookNode, cell: str | None = None) -> list[bytes]:
    """Returns the PNG images of the outputs."""
    images = [output.get("data", {}).get("image/png") for output in outputs(page, cell)]
    return [base64.b64decode(image) for image in images if image]


def warnings(page: NotebookNode) -> str:
    """Returns what the cells wrote to stderr."""
    return "".join(output.text for output in outputs(page) if output.get("name") == "stderr")
