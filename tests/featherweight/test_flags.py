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
    """What to try."""

    words: list[str] = field(default_factory=list)
    """Words to try."""
    weights: Path | None = None
    """Who tries."""
    seed: int = 0
    """Seed of the tries."""
    quiet: bool = False
    """Say nothing."""
    kind: Literal["one", "two", "three", "four", "five", "six-seven"] = "one"
    """Kind of the tries."""


def help_of(config: type) -> str:
    return parser("try", "Try it.", config, "words").format_help()


def test_help_says_defaults_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    text = help_of(Config)
    assert text.startswith("usage: featherweight try [words ...] [--flags]\n\nTry it.\n")
    assert "Seed of the tries. (default: 0)" in text
    assert "Say nothing.\n" in text
    assert "Who tries.\n" in text
    assert "--weights PATH" in text
    assert "Kind of the tries. One of one, two, three, four, five,\n" in text
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


def test_the_bundle_that_ships_is_known_by_its_name() -> None:
    given = ["--weights", "pretrained"]
    assert read(parser("try", "", Config, "words"), given, Config).weights == PATH
    given = ["--weights", "elsewhere/pretrained"]
    assert read(parser("try", "", Config, "words"), given, Config).weights == Path(given[1])
