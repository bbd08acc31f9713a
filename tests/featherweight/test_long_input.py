"""No message repeats much of what it is about, however long a flag, a name or a cell is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from featherweight.reports.terminal import OneLineFormatter
from tests.helpers.command_line import TINY, Capture, call

MAX_LINE = 1_000
MAX_REPEATED = 200
WORD = "".join(f"{index:05d}x" for index in range(17_000))  # 102,000 characters, none repeated
WORDS = " ".join(f"w{index}" for index in range(15_000))


def check(capsys: Capture, caplog: pytest.LogCaptureFixture) -> None:
    """Checks every line on stderr, and the log as the command line shows it."""
    err = capsys.readouterr().err
    assert "Traceback" not in err
    for line in [*err.splitlines(), *map(OneLineFormatter().format, caplog.records)]:
        assert len(line) <= MAX_LINE, line[:2_000]
        for start in range(len(line) - MAX_REPEATED):
            part = line[start : start + MAX_REPEATED + 1]
            assert part not in WORD
            assert part not in WORDS


@pytest.mark.parametrize("value", [WORD, WORDS], ids=["word", "words"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["VALUE"],
        ["train", "--VALUE", "1"],
        ["train", "VALUE"],
        ["train", "--config", "VALUE"],
        ["train", "--epochs", "VALUE"],
        ["train", "--learning_rate", "VALUE"],
        ["train", "--preset", "VALUE"],
        ["train", "--name", "VALUE", "--data", "DATA", *TINY],
        ["train", "--data", "VALUE"],
        ["train", "--train_path", "VALUE"],
        ["train", "--data", "DATA", "--labels", "VALUE,VALUE"],
        ["train", "--data", "DATA", "--labels", "VALUE"],
        ["train", "--data", "DATA", "--labels", "joy,VALUE", *TINY],
        ["train", "--data", "DATA", "--text_column", "VALUE"],
        ["train", "--data", "DATA", "--label_column", "VALUE"],
        ["train", "--data", "DATA", "--encoding", "VALUE"],
        ["train", "--data", "DATA", "--delimiter", "VALUE"],
        ["test", "--weights", "VALUE"],
        ["test", "--weights", "RUN", "--split", "VALUE"],
        ["test", "--output_dir", "VALUE"],
        ["predict", "hi", "--weights", "VALUE"],
        ["predict", "hi", "--weights", "RUN", "--answer_prefix", "=VALUE"],
        ["predict", "--weights", "RUN", "--csv", "VALUE"],
        ["predict", "--weights", "RUN", "--csv", "in.csv", "--text_column", "VALUE"],
        ["predict", "--weights", "RUN", "--csv", "in.csv", "--output_path", "VALUE"],
        ["predict", "--weights", "RUN", "--csv", "in.csv", "--output_path", "x.VALUE"],
        ["predict", "--weights", "RUN", "--csv", "in.csv", "--min_confidence", "VALUE"],
        ["compare", "VALUE"],
        ["compare", "RUN", "--batch_sizes", "VALUE"],
        ["compare", "RUN", "--reference", "VALUE"],
        ["compare", "RUN", "--output_path", "VALUE"],
        ["compress", "--weights", "RUN", "--method", "VALUE"],
        ["compress", "--weights", "RUN", "--target_size", "VALUE"],
        ["compress", "--weights", "RUN", "--method", "distill", "--teachers", "VALUE"],
        ["finetune", "--model", "VALUE", "--data", "DATA"],
        ["finetune", "--model", "VALUE", "VALUE", "--data", "DATA"],
        ["features", "--model", "VALUE", "--data", "DATA"],
        ["test_transformer", "--model", "VALUE", "--data", "DATA"],
        ["push", "--weights", "RUN", "--repo_id", "VALUE"],
        ["export", "--weights", "VALUE", "--output_path", "bundle"],
        ["verify", "VALUE"],
        ["serve", "--port", "VALUE"],
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_flags(
    capsys: Capture, caplog: pytest.LogCaptureFixture, here: Path, texts: Path, tiny_run: Path,
    tiny_data: Path, value: str, arguments: list[str],
) -> None:  # fmt: skip
    run = shutil.copytree(tiny_run, here / "tiny")

    def placed(word: str) -> str:
        word = word.replace("RUN", str(run)).replace("DATA", str(tiny_data))
        return word.replace("VALUE", value)

    assert call(*map(placed, arguments)) in (1, 2)
    check(capsys, caplog)


def rows(*labels: str) -> str:
    return "text,label\n" + "".join(f'so {label[:5]},"{label}"\n' for label in labels)


CONTENTS: dict[str, Callable[[str], str]] = {
    "unknown label": lambda value: rows("joy", "anger", value),
    "long column names": lambda value: f"{value},{value}2\na,b\n",
    "the same column twice": lambda value: f"{value},{value}\na,b\n",
    "long header without a label": lambda value: f"text,{value}\na,b\n",
    "a list of labels": lambda value: rows("joy", f"['{value}', 'joy']"),
    "several labels": lambda value: rows("joy", "anger", f"joy|{value}", *["joy"] * 30),
    "a decimal label": lambda value: rows("joy", "anger", f"0.{'1' * 100_000}", *["joy"] * 30),
    "a label on each row": lambda value: rows(*(f"{value}{index}" for index in range(21))),
    "one class": lambda value: rows(*[value] * 30),
    "labels that differ in case": lambda value: rows(*[value, value.upper(), "joy"] * 30),
    "integers and names": lambda value: rows(*[value, "1"] * 30),
    "too many fields": lambda value: f"text,label\na,b,{value}\n",
    "one row": lambda value: rows(value),
    "a control character": lambda value: rows(*[f"{value}\x1b[31m", "joy"] * 30),
}


@pytest.mark.parametrize("value", [WORD, WORDS], ids=["word", "words"])
@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize("verb", ["train", "test", "predict"])
def test_contents_of_a_file(
    capsys: Capture, caplog: pytest.LogCaptureFixture, here: Path, tiny_run: Path, verb: str,
    kind: str, value: str,
) -> None:  # fmt: skip
    path = here / "in.csv"
    path.write_text(CONTENTS[kind](value), encoding="utf-8")
    run = shutil.copytree(tiny_run, here / "tiny")  # `test` writes into it
    flags = ["--min_confidence", "0.5"] if verb == "predict" else TINY
    arguments = {
        "train": ["train", "--data", path, *TINY],
        "test": ["test", "--weights", run, "--data", path, "--split", "train", "--json"],
        "predict": ["predict", "--weights", tiny_run, "--csv", path, "--bad_rows", "fail", *flags],
    }
    call(*arguments[verb])
    check(capsys, caplog)


@pytest.mark.parametrize("value", [WORD, WORDS], ids=["word", "words"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.jsonl", '{"text": "VALUE", "label": VALUE}\n'),
        ("train.jsonl", '{"VALUE": "so happy"}\n'),
        ("train.json", '{"VALUE": "VALUE"\n,"x": 1}'),
        ("train.json", '["VALUE", VALUE]'),
        ("train.txt", "VALUE\nVALUE;joy\n"),
        ("train.txt", "__label__VALUE __label__joy hi\n"),
        ("labels.txt", "VALUE\nVALUE\n"),
        ("labels.txt", "VALUE\x07\njoy\n"),
        ("labels.txt", "VALUE\n"),
    ],
)
def test_other_files(
    capsys: Capture, caplog: pytest.LogCaptureFixture, here: Path, tiny_data: Path, name: str,
    content: str, value: str,
) -> None:  # fmt: skip
    folder = here / "data"
    folder.mkdir()
    if name == "labels.txt":
        shutil.copytree(tiny_data, folder, dirs_exist_ok=True)
    (folder / name).write_text(content.replace("VALUE", value), encoding="utf-8")
    assert call("train", "--data", folder, *TINY) == 2
    check(capsys, caplog)


def test_records_of_a_run(
    capsys: Capture, caplog: pytest.LogCaptureFixture, here: Path, tiny_run: Path
) -> None:
    run = shutil.copytree(tiny_run, here / "outputs" / "mine")
    for name, values in {
        "data.json": {"name": WORD, "splits": {}},
        "evaluation.json": {"split": WORD, "macro_f1": 0.5},
    }.items():
        (run / name).write_text(json.dumps(values))
    assert call("predict", "hi") == 0
    check(capsys, caplog)
    (run / "evaluation.json").write_text(WORDS)
    assert call("push", "--weights", run, "--repo_id", "ada/moods", "--dry_run") == 2
    check(capsys, caplog)
