"""The commands and the Python of README.md run as they stand there, one after the other."""

import csv
import re
import runpy
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from featherweight.cli import VERBS, main
from featherweight.data import sources
from transformer_eval.random_weights import build
from transformer_eval.registry import REGISTRY

ENDLESS = {"serve"}  # its own tests run it
SCRIPTS = ("train.py", "test.py", "test_transformer.py")
ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(console|bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def steps() -> list[tuple[str, str]]:
    """Returns ("command", line) and ("python", code) in the order of the README."""
    found = []
    for language, block in BLOCK.findall(README):
        if language == "python":
            found.append(("python", block))
        else:
            lines = [line[2:] for line in block.splitlines() if line.startswith("$ ")]
            found += [("command", line) for line in lines]
    return found


def wanted(command: str) -> bool:
    """Whether a command needs no network, installs nothing and takes seconds."""
    program, *arguments = shlex.split(command)
    if program == "python":
        far = {"dair-ai/emotion", "deberta-large"}
        return arguments[0] in SCRIPTS and not far.intersection(arguments)
    return program == "featherweight" and arguments[0] not in ENDLESS


def run(command: str) -> int:
    program, *arguments = shlex.split(command, comments=True)
    if program == "featherweight":
        return main(arguments)
    if arguments[0] == "train.py":
        arguments += ["--min_steps", "1"]  # the last of a flag counts: fewer steps an epoch
    sys.argv = arguments
    with pytest.raises(SystemExit) as end:
        runpy.run_path(arguments[0], run_name="__main__")
    return int(end.value.code or 0)


def shorten(path: Path) -> None:
    """Keeps an eighth of the rows, so that a training takes a second."""
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows[::8]])


def install_tiny_minilm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a package of the same name, with a model of seconds, where the real one would be."""
    model = REGISTRY["minilm"]
    package = folder / str(model.package)
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 32}  # fmt: skip
    sizes = replace(model, sizes=tiny)
    build(sizes, ["so happy today"], ("joy", "sadness"), package / "model")
    monkeypatch.syspath_prepend(str(folder))


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the commands name, to write into."""
    for script in SCRIPTS:
        shutil.copy(ROOT / script, tmp_path)
    corpus = tmp_path / "featherweight" / "corpus"
    shutil.copytree(sources.CORPUS, corpus)
    for path in corpus.glob("*.csv"):
        shorten(path)
    monkeypatch.setattr(sources, "CORPUS", corpus)
    install_tiny_minilm(tmp_path / "site-packages", monkeypatch)
    (tmp_path / "tweets.csv").write_text("text\nso happy\n", encoding="utf-8")
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "1.csv").write_text("text\nso happy\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    return tmp_path


def test_every_verb_has_an_example() -> None:
    commands = " ".join(step for kind, step in steps() if kind == "command" and wanted(step))
    for verb in VERBS.keys() - ENDLESS:
        assert re.search(rf"\b{verb}\b", commands), verb


def test_the_readme_says_what_it_shows(checkout: Path) -> None:
    for kind, step in steps():
        if kind == "python":
            exec(compile(step, "README.md", "exec"), {})
        elif wanted(step):
            assert run(step) == 0, step
    assert (checkout / "tweets_predictions.csv").exists()


def test_the_make_targets_of_the_readme_are_there() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    named = set(re.findall(r"(?:`|\$ )make (\w+)", README))
    assert named
    assert named <= targets


def test_the_programs_of_the_readme_are_there() -> None:
    programs = {step.split()[1] for kind, step in steps() if step.startswith("python ")}
    assert len(programs) > len(SCRIPTS)
    assert [program for program in sorted(programs) if not (ROOT / program).is_file()] == []


def test_what_the_readme_links_to_is_there() -> None:
    links = set(re.findall(r"\]\((?!https?:|#)([^)#]+)", README))
    assert [link for link in sorted(links) if not (ROOT / link).exists()] == []
