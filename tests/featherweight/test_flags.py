from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from edge.pretrained import PATH
from featherweight.cli import VERBS, main
from featherweight.flags import parser, read

WIDTH = 80


@dataclass(frozen=True)
class Config:
    """Options."""

    words: list[str] = field(default_factory=list)
    """Some words."""
    weights: Path | None = None
    """Some weights."""
    seed: int = 0
    """Some seed."""
    quiet: bool = False
    """Print nothing."""
    kind: Literal["one", "two", "three", "four", "five", "six-seven"] = "one"
    """Kind of some item."""


def help_of(config: type) -> str:
    return parser("try", "Try it.", config, "words").format_help()


def test_help_shows_nonempty_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    text = help_of(Config)
    assert text.startswith("usage: featherweight try [words ...] [--flags]\n\nTry it.\n")
    assert "Some seed. (default: 0)" in text
    assert "Print nothing.\n" in text
    assert "Some weights.\n" in text
    assert "--weights PATH" in text
    assert "Kind of some item. One of one, two, three, four, five,\n" in text
    assert "six-seven. (default: one)" in text


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_the_help_of_a_verb_fits_a_terminal(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 10
    assert [line for line in lines if len(line) > WIDTH] == []


def test_pretrained_names_the_bundle_of_the_package() -> None:
    given = ["--weights", "pretrained"]
    assert read(parser("try", "", Config, "words"), given, Config).weights == PATH
    given = ["--weights", "elsewhere/pretrained"]
    assert read(parser("try", "", Config, "words"), given, Config).weights == Path(given[1])
