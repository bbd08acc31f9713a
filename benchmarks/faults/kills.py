"""Kills: commands that are killed at random moments leave the old output or the new one."""

import hashlib
import json
import random
import shutil
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

from faults.commands import Arguments, kill_after, kill_at, run, run_recorded
from faults.materials import NAME, TEXTS, Materials
from faults.sweep import Case, Part, Violation, named
from safetensors import SafetensorError, safe_open

from featherweight.comparison.compare import FILES, REPORT
from featherweight.run import CHECKPOINTS, Run

_PARTIAL = (".part", ".progress")  # of predictions
_SECONDS = 300.0  # for a case, which runs up to a dozen commands

Digest = Callable[[Path, Path], str]  # of an output; the second path is for logs


@dataclass(frozen=True)
class Scenario:
    """A command that is killed, and those that come after it.

    Attributes:
        command: Returns the command, given the folder to write into and further flags.
        output: Name of what it writes in that folder.
        digest: Identifies a complete output; "" if there is none.
        before: What is copied into the folder first, by name.
        flags: Of the command that is killed.
        resume: Flags that continue it.
        redo: Flags that write the output whatever there is.
    """

    command: Callable[..., Arguments]
    output: str
    digest: Digest
    before: Mapping[str, Path] = field(default_factory=dict)
    flags: Sequence[str] = ()
    resume: Sequence[str] | None = None
    redo: Sequence[str] = ("--overwrite",)


@dataclass(frozen=True)
class Reference:
    """What a command does that is not killed.

    Attributes:
        seconds: From its start to its end.
        num_changes: How often it changes its folder.
        digests: Of the output before and after; the first one may be "".
    """

    seconds: float
    num_changes: int
    digests: tuple[str, str]


def part(made: Materials, count: int) -> Part:
    """Returns the part: each case kills a command, in turns."""
    scenarios = _scenarios(made)

    def prepare(folder: Path) -> Case:
        @cache
        def reference(index: int) -> Reference:
            return _uninterrupted(scenarios[index], folder)

        def case(number: int, generator: random.Random) -> str:
            index = number % len(scenarios)
            return _killed(scenarios[index], reference(index), folder, generator)

        return case

    return Part("kills", count, prepare, hang_seconds=_SECONDS)


def _scenarios(made: Materials) -> list[Scenario]:
    """Returns the commands; their number is even, so that each child process has its own."""

    def prune(here: Path, *flags: str) -> Arguments:
        return made.prune(here / NAME, *flags)

    def predict(here: Path, *flags: str) -> Arguments:
        return made.predict(here / "out.csv", *flags)

    def predict_with_workers(here: Path, *flags: str) -> Arguments:
        return ["predict", "--weights", made.bundle, "--csv", made.many_rows, "--output_path",
                here / "out.csv", *flags]  # fmt: skip

    def export(name: str, here: Path, *flags: str) -> Arguments:
        return made.export(here / name, *flags)

    def compare(here: Path, *flags: str) -> Arguments:
        return made.compare(here / "report", *flags)

    overwrite, resume = ("--overwrite",), ("--resume",)
    pruned = f"{NAME}/compressed/prune"
    old_variant = made.old / "lstm" / pruned
    found = []
    for kind, command in (("lstm", made.train), ("transformer", made.finetune)):
        new = partial(Scenario, command, NAME, _model_digest, resume=resume)
        found += [
            new(),
            new({NAME: made.old / kind / NAME}, overwrite),
            new({NAME: made.cut / kind / NAME}, resume),
        ]
    new = partial(Scenario, predict, "out.csv", _file_digest, resume=resume, redo=())
    cut = {f"out.csv{suffix}": made.cut / "predictions" / f"out.csv{suffix}" for suffix in _PARTIAL}
    found += [new(), new({"out.csv": made.old / "out.csv"}), new(cut, resume)]
    found.append(Scenario(predict_with_workers, "out.csv", _file_digest, resume=resume, redo=()))
    new = partial(Scenario, prune, pruned, _model_digest)
    found += [new({NAME: made.lstm}), new({NAME: made.lstm, pruned: old_variant}, overwrite)]
    for name, digest in (("bundle", _bundle_digest), ("bundle.zip", _bundle_digest)):
        new = partial(Scenario, partial(export, name), name, digest)
        found += [new(), new({name: made.old / name}, overwrite)]
    new = partial(Scenario, compare, "report", _report_digest, redo=())
    return [*found, new(), new({"report": made.old / "report"})]


def _uninterrupted(scenario: Scenario, folder: Path) -> Reference:
    here = _prepared(scenario, folder)
    old = scenario.digest(here / scenario.output, folder / "digest")
    started = time.monotonic()
    arguments = scenario.command(here, *scenario.flags)
    answer, changes = run_recorded(here, arguments, folder / "reference")
    seconds = time.monotonic() - started
    answer.require_success()
    new = scenario.digest(here / scenario.output, folder / "digest")
    if new in ("", old):
        raise RuntimeError(f"{arguments[0]}: the output has to differ from the old one")
    return Reference(seconds, len(changes), (old, new))


def _killed(
    scenario: Scenario, reference: Reference, folder: Path, generator: random.Random
) -> str:
    """Kills a command, checks what it has left, and runs the commands that come after it."""
    here = _prepared(scenario, folder)
    arguments = scenario.command(here, *scenario.flags)
    if generator.random() < 0.5:
        moment = generator.uniform(0, reference.seconds)
        kill_after(moment, arguments, folder / "killed")
        place = f"{arguments[0]} {' '.join(scenario.flags)} killed after {moment:.2f} s"
    else:
        change = generator.randrange(reference.num_changes)
        kill_at(change, here, arguments, folder / "killed")
        place = f"{arguments[0]} {' '.join(scenario.flags)} killed at change {change}"
    with named(place):
        return _check(scenario, reference, here, folder)


def _check(scenario: Scenario, reference: Reference, here: Path, folder: Path) -> str:
    output, log = here / scenario.output, folder / "digest"
    _, new = reference.digests
    _require_whole_files(here)
    left = scenario.digest(output, log)
    if left not in reference.digests:
        raise Violation(f"{scenario.output} is neither the old nor the new one")
    commands = [scenario.redo]
    if scenario.resume is not None and left != new:
        commands.insert(0, scenario.resume)
    for flags in commands:
        answer = run(scenario.command(here, *flags), folder / "after").require_one_line()
        if scenario.digest(output, log) == new and not answer.code:
            break
    else:
        answer.require_success()
        raise Violation("the next command has another result than without the kill")
    leftovers = sorted(
        str(path.relative_to(here)) for path in here.rglob("*") if _is_leftover(path)
    )
    if leftovers:
        raise Violation(f"left after the next command: {', '.join(leftovers)[:200]}")
    return {new: "new output", "": "no output yet"}.get(left, "old output")


def _is_leftover(path: Path) -> bool:
    return path.name.startswith(".") or path.suffix in _PARTIAL


def _prepared(scenario: Scenario, folder: Path) -> Path:
    """Returns a folder with nothing but what is there before the command."""
    here = folder / "here"
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir()
    for name, source in scenario.before.items():
        if source.is_dir():
            shutil.copytree(source, here / name, dirs_exist_ok=True)
        else:
            shutil.copy2(source, here / name)
    return here


def _require_whole_files(folder: Path) -> None:
    """Raises a Violation for a visible file that is only half written."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_dir() or CHECKPOINTS in parts or any(part.startswith(".") for part in parts):
            continue
        try:
            _read(path)
        except (ValueError, SafetensorError, zipfile.BadZipFile) as error:
            raise Violation(f"{path.relative_to(folder)} is half written ({error})") from None


def _read(path: Path) -> None:
    if path.suffix == ".json":
        json.loads(path.read_bytes())
    elif path.suffix == ".jsonl":
        for line in path.read_bytes().splitlines():
            json.loads(line)
    elif path.suffix == ".safetensors":
        safe_open(path, "numpy").keys()
    elif path.suffix == ".zip":
        zipfile.ZipFile(path).close()
    elif path.suffix == ".png" and not path.read_bytes().endswith(b"IEND\xaeB`\x82"):
        raise ValueError("no end of the image")


def _model_digest(path: Path, log: Path) -> str:
    """Identifies the weights of a run and its predictions; "" if it is absent or unfinished."""
    answer = run(["predict", "--weights", path, "--json", *TEXTS], log).require_one_line()
    weights = Run(path).weights
    if answer.code or not weights:
        return ""
    return _sha256(weights.read_bytes(), answer.out.encode())


def _bundle_digest(path: Path, log: Path) -> str:
    answer = run(["verify", path], log).require_one_line()
    if answer.code:
        return ""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return _sha256(*(file.read_bytes() for file in files))


def _file_digest(path: Path, log: Path) -> str:
    return _sha256(path.read_bytes()) if path.is_file() else ""


def _report_digest(path: Path, log: Path) -> str:
    if not path.is_dir():
        return ""
    missing = FILES - {file.name for file in path.iterdir()}
    if missing:
        raise Violation(f"the report has no {', '.join(sorted(missing))}")
    return _sha256(json.dumps(json.loads((path / REPORT).read_bytes())["rows"]).encode())


def _sha256(*contents: bytes) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    return digest.hexdigest()
