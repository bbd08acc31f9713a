"""Builds command-line parsers from dataclasses: each field is a flag, its docstring the help."""

import argparse
import dataclasses
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

import docstring_parser
from jsonargparse import ActionYesNo, ArgumentParser, DefaultHelpFormatter

from featherweight.errors import shortened
from featherweight.loading import resolve_weights
from featherweight.reports.terminal import printable

Config = TypeVar("Config")

_METAVARS = {Path: "PATH", int: "N", float: "X", str: "TEXT"}
_MAX_CHOICES = 5  # listed after a flag; longer lists go into its help text
_MAX_LINE = 390  # characters of a message, of which its end is at most half


class _Formatter(DefaultHelpFormatter):
    """Shows defaults unless they are empty or off; metavars show the types."""

    def _get_help_string(self, action: argparse.Action) -> str:
        default, text = action.default, action.help or ""
        if default == argparse.SUPPRESS:
            return super()._get_help_string(action)
        if default is None or default is False or default in ("", []):
            return text
        shown = " ".join(map(str, default)) if isinstance(default, list) else default
        return f"{text} (default: {shown})"

    def _split_lines(self, text: str, width: int) -> list[str]:
        # Names such as "qat-int4" are not broken.
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


class _Parser(ArgumentParser):
    """Shows what is wrong with the flags in short, printable lines."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints the usage and the message, and ends the process."""
        lines = [shortened(printable(line), _MAX_LINE) for line in message.splitlines()]
        super().error("\n  ".join(filter(None, lines)), ex)


def parser(
    verb: str, description: str | None, config: type[Any], positional: str | None = None
) -> ArgumentParser:
    """Builds a parser whose flags are the fields of a dataclass, in one group per base class.

    Args:
        verb: Name of the subcommand.
        description: Its description.
        config: A dataclass; each field becomes a flag, its docstring the help.
        positional: Name of the field that takes the positional arguments.
    """
    words = f" [{positional} ...]" if positional else ""
    built = _Parser(
        prog=f"featherweight {verb}",
        usage=f"featherweight {verb}{words} [--flags]",
        description=description,
        formatter_class=_Formatter,
    )
    types = get_type_hints(config)
    if positional:
        documented = docstring_parser.parse_from_object(config).params
        (text,) = (field.description for field in documented if field.arg_name == positional)
        (word,) = get_args(types[positional])
        built.add_argument(positional, nargs="*", type=word, default=[], help=text)
    built.add_argument(
        "--config", action="config", metavar="PATH", help="YAML or JSON file with any of the flags"
    )
    defaults = {name: value for name, value in vars(config()).items() if name != positional}
    for base in filter(dataclasses.is_dataclass, config.__mro__):
        documentation = docstring_parser.parse_from_object(base)
        group = built.add_argument_group((documentation.short_description or "").rstrip("."))
        for attribute in documentation.params:
            name = attribute.arg_name
            if name not in defaults:  # overridden by a derived dataclass
                continue
            options, choices = _argument_options(types[name])
            text = (attribute.description or "") + choices
            group.add_argument(f"--{name}", default=defaults.pop(name), help=text, **options)
    return built


def _argument_options(of_type: Any) -> tuple[dict[str, Any], str]:
    """Returns the `add_argument` options for a type, and a sentence to add to the help."""
    if of_type is bool:
        # --json is True, --no_json is False.
        return {"action": ActionYesNo(no_prefix="no_")}, ""
    if get_origin(of_type) is list:
        (item,) = get_args(of_type)
        return {"type": item, "nargs": "+", "metavar": _METAVARS[item]}, ""
    if get_origin(of_type) is Literal:
        choices = get_args(of_type)
        if len(choices) <= _MAX_CHOICES:
            return {"type": of_type}, ""
        return {"type": of_type, "metavar": "NAME"}, f" One of {', '.join(choices)}."
    not_none = next((item for item in get_args(of_type) if item is not type(None)), of_type)
    return {"type": of_type, "metavar": _METAVARS[not_none]}, ""


def read(parser: ArgumentParser, arguments: Sequence[str], config: type[Config]) -> Config:
    """Parses a command line into a config; `weights` become paths."""
    values: dict[str, Any] = parser.parse_args(arguments).as_dict()
    weights = values.get("weights")
    if isinstance(weights, list):
        values["weights"] = [resolve_weights(path) for path in weights]
    elif weights:
        values["weights"] = resolve_weights(weights)
    del values["config"]
    return config(**values)
