"""The commands and the Python examples of README.md run in their order."""

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
from featherweight.timing.latency import measure
from featherweight.training.config import TrainingConfig
from transformer_eval.random_weights import build
from transformer_eval.registry import REGISTRY

ENDLESS = {"serve"}  # has its own tests
SCRIPTS = ("train.py", "test.py", "test_transformer.py")
ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(console|bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def steps() -> list[tuple[str, str]]:
    """Returns ("command", line) and ("python", code) in the order of the README."""
    parts = []
    for language, block in BLOCK.findall(README):
        if language == "python":
            parts.append(("python", block))
        else:
            lines = [line[2:] for line in block.splitlines() if line.startswith("$ ")]
            parts += [("command", line) for line in lines]
    return parts


def is_tested(command: str) -> bool:
    """Returns whether a command needs no network, installs nothing and takes seconds."""
    program, *arguments = shlex.split(command)
    if program == "python":
        remote = {"dair-ai/emotion", "deberta-large"}
        return arguments[0] in SCRIPTS and not remote.intersection(arguments)
    return program == "featherweight" and arguments[0] not in ENDLESS


def run(command: str) -> int:
    program, *arguments = shlex.split(command, comments=True)
    if program == "featherweight":
        return main(arguments)
    sys.argv = arguments
    with pytest.raises(SystemExit) as end:
        runpy.run_path(arguments[0], run_name="__main__")
    return int(end.value.code or 0)


def shorten(path: Path) -> None:
    """Keeps every eighth row."""
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows[::8]])


def install_tiny_minilm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installs a package of the same name with a tiny model."""
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
    """A working folder with the files that the commands name; training and timing are short."""
    monkeypatch.setattr(TrainingConfig, "passes_per_epoch", lambda *_: 1)
    monkeypatch.setitem(measure.__kwdefaults__, "min_seconds", 0.0)
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
    commands = " ".join(step for kind, step in steps() if kind == "command" and is_tested(step))
    for verb in VERBS.keys() - ENDLESS:
        assert re.search(rf"\b{verb}\b", commands), verb


def test_examples_run(checkout: Path) -> None:
    for kind, step in steps():
        if kind == "python":
            exec(compile(step, "README.md", "exec"), {})
        elif is_tested(step):
            assert run(step) == 0, step
    assert (checkout / "tweets_predictions.csv").exists()


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    mentioned = set(re.findall(r"(?:`|\$ )make (\w+)", README))
    assert mentioned
    assert mentioned <= targets


def test_programs_exist() -> None:
    programs = {step.split()[1] for kind, step in steps() if step.startswith("python ")}
    assert len(programs) > len(SCRIPTS)
    assert [program for program in sorted(programs) if not (ROOT / program).is_file()] == []


def test_links_exist() -> None:
    links = set(re.findall(r"\]\((?!https?:|#)([^)#]+)", README))
    assert [link for link in sorted(links) if not (ROOT / link).exists()] == []
