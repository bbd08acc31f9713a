"""Damaged files: a command refuses them with one line, or its answer is unchanged."""

import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path

from faults.commands import Answer, call
from faults.materials import NAME, TEXTS, Materials
from faults.sweep import Case, Part, Violation, named

import featherweight.test
import lstm.train
from featherweight.errors import FeatherweightError
from featherweight.hub.card import hub_card
from featherweight.run import Run

_RUN = ("config.json", "labels.json", "data.json", "tokenizer.json", "model.safetensors")
_CHECKPOINT = ("checkpoint.safetensors",)
_BUNDLE = ("bundle.json", "model.onnx", "tokenizer.json", "labels.json", "golden.jsonl")
_VARIANT = f"{NAME}/compressed/int8"

Damage = Callable[[bytes, random.Random], tuple[str, bytes]]  # what was done, and the result


@dataclass(frozen=True, eq=False)  # hashed by identity
class Reader:
    """A command, and the files that it reads.

    Attributes:
        name: For the messages.
        sources: What is copied before each call, files or folders.
        files: The damaged files among them; one that is named twice is damaged twice as often.
        read: Calls the command, given the folder with the copies; returns its answer and what has
            to be the same unless it fails.
        weight: Share of the cases, in relation to the other readers.
    """

    name: str
    sources: Sequence[Path]
    files: Sequence[str]
    read: Callable[[Path], tuple[Answer, object]]
    weight: int = 1


def flips(made: Materials, count: int) -> Part:
    """Returns the part in which one byte of a file is changed."""
    return Part("flips", count, lambda folder: _prepared(made, folder, _flipped))


def truncations(made: Materials, count: int) -> Part:
    """Returns the part in which the end of a file is missing."""
    return Part("truncations", count, lambda folder: _prepared(made, folder, _truncated))


def _flipped(content: bytes, generator: random.Random) -> tuple[str, bytes]:
    place, mask = generator.randrange(len(content)), generator.randrange(1, 256)
    changed = bytes([content[place] ^ mask])
    return f"byte {place} ^ {mask}", content[:place] + changed + content[place + 1 :]


def _truncated(content: bytes, generator: random.Random) -> tuple[str, bytes]:
    size = generator.randrange(len(content))
    return f"cut after {size} bytes", content[:size]


def _prepared(made: Materials, folder: Path, damage: Damage) -> Case:
    # Pictures take most of the time and read none of the files.
    for module in (lstm.train, featherweight.test):
        for name in ("draw_training", "draw_evaluation"):
            setattr(module, name, lambda *_: None)
    readers = _readers(made)
    bounds = list(accumulate(reader.weight for reader in readers))
    here = folder / "here"

    @cache
    def expected(reader: Reader) -> object:
        _copy(reader.sources, here)
        answer, result = reader.read(here)
        answer.require_success()
        return result

    def case(_: int, generator: random.Random) -> str:
        (reader,) = generator.choices(readers, cum_weights=bounds)
        name = generator.choice(reader.files)
        unchanged = expected(reader)
        _copy(reader.sources, here)
        path = here / name
        done, content = damage(path.read_bytes(), generator)
        path.write_bytes(content)
        with named(f"{reader.name}, {name}, {done}"):
            answer, result = reader.read(here)
            if answer.require_one_line().code:
                return "refused"
            if result != unchanged:
                raise Violation("another answer, and no error")
        return "same answer"

    return case


def _copy(sources: Sequence[Path], folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for source in sources:
        if source.is_dir():
            shutil.copytree(source, folder / source.name)
        else:
            shutil.copy2(source, folder)


def _readers(made: Materials) -> list[Reader]:
    run = tuple(f"{NAME}/{name}" for name in _RUN)
    records = tuple(f"{NAME}/{name}" for name in ("config.json", "data.json"))
    bundle = tuple(f"bundle/{name}" for name in _BUNDLE)
    variant = tuple(f"{_VARIANT}/{name}" for name in ("compression.json", "config.json"))
    unfinished = tuple(f"{NAME}/{name}" for name in (*_RUN[:-1], *4 * _CHECKPOINT))
    pretrained = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
    return [
        Reader("predict a run", [made.lstm], run, _predict(NAME), 4),
        Reader("test a run", [made.lstm], records, _test(NAME), 2),
        Reader("test a variant", [made.lstm], variant, _test(_VARIANT), 2),
        Reader("export a run", [made.lstm], records, _export(NAME), 2),
        Reader("export a variant", [made.lstm], variant, _export(_VARIANT), 2),
        Reader("compare", [made.lstm, made.bundle], (*records, *bundle), _compare),
        Reader("card for push", [made.lstm], [f"{NAME}/evaluation.json"], _card, 2),
        Reader("resume a run", [made.cut / "lstm" / NAME], unfinished, _resume(made), 4),
        Reader("predict a bundle", [made.bundle], bundle, _predict("bundle"), 4),
        Reader("predict a zipped bundle", [made.zipped], ["bundle.zip"], _predict("bundle.zip"), 4),
        Reader("verify", [made.bundle], bundle, _verify("bundle"), 4),
        Reader("verify a zipped bundle", [made.zipped], ["bundle.zip"], _verify("bundle.zip"), 4),
        Reader("resume predictions", [made.cut / "predictions"],
               ["predictions/out.csv.progress"], _resume_predictions(made), 2),
        Reader("predict a transformer", [made.transformer],
               [f"{NAME}/transformer/{name}" for name in pretrained], _predict(NAME), 2),
    ]  # fmt: skip


def _predict(name: str) -> Callable[[Path], tuple[Answer, object]]:
    def read(folder: Path) -> tuple[Answer, object]:
        answer = call("predict", "--weights", folder / name, "--device", "cpu", "--json", *TEXTS)
        return answer, answer.out

    return read


def _test(name: str) -> Callable[[Path], tuple[Answer, object]]:
    def read(folder: Path) -> tuple[Answer, object]:
        answer = call("test", "--weights", folder / name, "--device", "cpu", "--json")
        return answer, answer.out

    return read


def _export(name: str) -> Callable[[Path], tuple[Answer, object]]:
    def read(folder: Path) -> tuple[Answer, object]:
        output = folder / "exported"
        answer = call("export", "--weights", folder / name, "--output_path", output)
        return answer, [_content(output / file) for file in _BUNDLE[1:]]

    return read


def _verify(name: str) -> Callable[[Path], tuple[Answer, object]]:
    def read(folder: Path) -> tuple[Answer, object]:
        answer = call("verify", folder / name)
        return answer, answer.out

    return read


def _compare(folder: Path) -> tuple[Answer, object]:
    output = folder / "report"
    models = folder / NAME, folder / "bundle"
    answer = call("compare", *models, "--device", "cpu", "--output_path", output)
    return answer, _content(output / "report.csv")


def _card(folder: Path) -> tuple[Answer, object]:
    """Reads what `push` reads; its numbers are those of the file, whatever they are."""
    try:
        hub_card(Run(folder / NAME), "acme/mine", "mit", ())
    except FeatherweightError as error:
        return Answer(error.exit_code, "", f"featherweight: {error}\n"), None
    return Answer(0, "", ""), None


def _resume(made: Materials) -> Callable[[Path], tuple[Answer, object]]:
    def read(folder: Path) -> tuple[Answer, object]:
        answer = call(*made.train(folder, "--resume"))
        return answer, _content(folder / NAME / "model.safetensors")

    return read


def _resume_predictions(made: Materials) -> Callable[[Path], tuple[Answer, object]]:
    def read(folder: Path) -> tuple[Answer, object]:
        output = folder / "predictions" / "out.csv"
        answer = call(*made.predict(output, "--resume"))
        return answer, _content(output)

    return read


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
