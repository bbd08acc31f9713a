"""Puts the figures of results/ between the markers of the documents; `make readme` runs it.

$ python benchmarks/render.py
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from rendering import card, findings, tables

from featherweight.run import atomic_open

ROOT = Path(__file__).parent.parent
# What stands between <!-- NAME --> and <!-- /NAME -->, by document and name.
DOCUMENTS: Mapping[str, Callable[[], Mapping[str, str]]] = {
    "README.md": tables.blocks,
    "docs/findings.md": findings.blocks,
    "docs/presets.md": tables.presets,
    "edge/pretrained/README.md": card.blocks,
}


def render(text: str, blocks: Mapping[str, str]) -> str:
    """Returns a text with everything between its markers made anew.

    Raises:
        ValueError: It has no markers for a block, or markers that no block is for.
    """
    for name, block in blocks.items():
        marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not marked.search(text):
            raise ValueError(f"no markers <!-- {name} --> and <!-- /{name} -->")
        text = marked.sub(lambda match, block=block: f"{match[1]}{block}\n{match[2]}", text)
    unknown = set(re.findall(r"<!-- /(\S+) -->", text)) - set(blocks)
    if unknown:
        raise ValueError(f"nothing is known for the markers {', '.join(sorted(unknown))}")
    return text


if __name__ == "__main__":
    for document, blocks in DOCUMENTS.items():
        path = ROOT / document
        rendered = render(path.read_text(encoding="utf-8"), blocks())
        with atomic_open(path) as file:
            file.write(rendered)
