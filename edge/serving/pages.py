"""The two HTML pages of the service, which load nothing from elsewhere."""

from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent
_STYLE = (_FOLDER / "style.css").read_text(encoding="utf-8")
PAGE = (_FOLDER / "page.html").read_text(encoding="utf-8").replace("STYLE\n", _STYLE)
"""The page at `/`: classifies a text."""

_EXAMPLE = "curl -H 'Content-Type: application/json' -d '{\"text\": \"i feel so happy\"}' %s"


def documentation(schema: Mapping[str, Any], url: str) -> str:
    """Returns a page that describes the API.

    Args:
        schema: The OpenAPI document of the service.
        url: Address of the service, for the example.
    """
    title = escape(schema["info"]["title"])
    parts = [
        "<!doctype html>",
        '<html lang="en">',
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">",
        '<link rel="icon" href="data:,">',
        f"<title>{title}: API</title>",
        f"<style>{_STYLE}</style>",
        f"<h1>{title}: API</h1>",
        f"<p>{escape(schema['info'].get('description', ''))}</p>",
        f"<pre><code>{escape(_EXAMPLE % (url + 'predict'))}</code></pre>",
        '<p><a href="openapi.json">OpenAPI document</a> · <a href="./">classify a text</a></p>',
    ]
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            parts += _operation(method, path, operation)
    parts.append("<h2>Objects</h2>")
    for name, properties in schema["components"]["schemas"].items():
        parts += _object(name, properties)
    return "\n".join(parts)


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2>"
    yield f"<p>{escape(operation.get('description', ''))}</p>"
    if "requestBody" in operation:
        yield f"<p>Body: {_content(operation['requestBody'])}</p>"
    yield "<table><tr><th>Status</th><th>Meaning</th><th>Body</th></tr>"
    for status, response in operation["responses"].items():
        description = escape(response["description"])
        yield f"<tr><td>{status}</td><td>{description}</td><td>{_content(response)}</td></tr>"
    yield "</table>"


def _content(described: Mapping[str, Any]) -> str:
    """Returns the type of a JSON body as HTML; "text" for a body of another kind."""
    schema = described.get("content", {}).get("application/json", {}).get("schema")
    return _type(schema) if schema else "text"


def _object(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f'<h3 id="{escape(name)}">{escape(name)}</h3>'
    yield f"<p>{escape(schema.get('description', ''))}</p>"
    yield "<table><tr><th>Field</th><th>Type</th></tr>"
    for field, properties in schema.get("properties", {}).items():
        yield f"<tr><td><code>{escape(field)}</code></td><td>{_type(properties)}</td></tr>"
    yield "</table>"


def _type(schema: Mapping[str, Any]) -> str:
    """Returns a type as HTML, with links to objects."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    return escape(schema.get("type", "any"))
