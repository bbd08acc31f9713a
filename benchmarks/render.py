"""Copies the figures of results/ into the documents; `make readme` runs it.

The sentences are in docs/templates, the values come from the modules in rendering/.

$ python benchmarks/render.py
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rendering import card, findings, readme
from rendering.formats import FILTERS

from featherweight.disk.atomic import atomic_open

ROOT = Path(__file__).parent.parent
# The template and the function that returns its values, by document.
DOCUMENTS: Mapping[str, tuple[str, Callable[[], Mapping[str, Any]]]] = {
    "README.md": ("README.md.jinja", readme.values),
    "docs/findings.md": ("findings.md.jinja", findings.values),
    "docs/presets.md": ("presets.md.jinja", readme.presets),
    "edge/pretrained/README.md": ("card.md.jinja", card.values),
}


def blocks(template: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Returns the rendered sections of a template by the names of their markers."""
    environment = Environment(
        loader=FileSystemLoader(ROOT / "docs" / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    rendered = environment.get_template(template).render(values)
    return {
        name: section.strip()
        for name, section in re.findall(r"<!-- (\S+) -->\n(.*?)<!-- /\1 -->", rendered, re.DOTALL)
    }


def render(text: str, blocks: Mapping[str, str]) -> str:
    """Returns a document with each block between the markers <!-- NAME --> and <!-- /NAME -->.

    Raises:
        ValueError: The document has no markers for a block, or markers without a block.
    """
    for name, block in blocks.items():
        marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not marked.search(text):
            raise ValueError(f"no markers <!-- {name} --> and <!-- /{name} -->")
        text = marked.sub(lambda match, block=block: f"{match[1]}{block}\n{match[2]}", text)
    unknown = set(re.findall(r"<!-- /(\S+) -->", text)) - set(blocks)
    if unknown:
        raise ValueError(f"no block for the markers {', '.join(sorted(unknown))}")
    return text


if __name__ == "__main__":
    for document, (template, values) in DOCUMENTS.items():
        path = ROOT / document
        rendered = render(path.read_text(encoding="utf-8"), blocks(template, values()))
        with atomic_open(path) as file:
            file.write(rendered)
