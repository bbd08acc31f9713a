import csv
import errno
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from featherweight import cli, inference, testing
from featherweight.cli import main
from featherweight.run import CHECKPOINT, CONFIG, MODEL

Capture = pytest.CaptureFixture[str]
TINY = [
    "--embedding_dim", "8", "--hidden_dim", "8", "--epochs", "1", "--min_steps", "1",
    "--device", "cpu",
]  # fmt: skip


def call(*arguments: str | Path) -> int:
    """Returns the exit code, also where the parser exits by itself."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)


def error_line(capsys: Capture) -> str:
    """Returns the one line that tells of a failure, after making sure that it is one."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert captured.err.endswith("\n")
    (line,) = [line for line in captured.err.splitlines() if line.startswith("featherweight: ")]
    assert captured.err.splitlines()[-1] == line
    return line


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def texts(here: Path) -> Path:
    path = here / "in.csv"
    path.write_text("text,id\nso happy,1\n=1+1,2\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_every_verb_with_what_it_does(capsys: Capture, flag: str) -> None:
    assert main([flag]) == 0
    captured = capsys.readouterr()
    for name, verb in cli.VERBS.items():
        assert name in captured.out
        assert str(verb.__doc__) in captured.out
    assert captured.err == ""


def test_the_command_alone_shows_the_help(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["featherweight"])
    assert main() == 0
    assert "usage: featherweight" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("verb", "flags"),
    [
        ("train", ["--data", "--preset", "--tokenizer", "--epochs", "--resume", "--overwrite"]),
        ("test", ["--weights", "--data", "--split", "--json"]),
        ("predict", ["--weights", "--csv", "--output_path", "--raw", "texts"]),
        ("compress", ["--weights", "--method", "--overwrite"]),
        ("compare", ["--reference", "--group", "--batch_sizes", "--cuda_graphs", "weights"]),
    ],
)
def test_the_help_of_a_verb_lists_its_flags_and_what_they_mean(
    capsys: Capture, verb: str, flags: list[str]
) -> None:
    assert call(verb, "--help") == 0
    out = capsys.readouterr().out
    for flag in [*flags, "--config", "--print_config"]:
        assert flag in out
    assert re.search("run director(y|ies)", " ".join(out.lower().split())) or verb == "train"


def test_training_prints_the_tables_and_where_the_run_is(
    capsys: Capture, caplog: pytest.LogCaptureFixture, here: Path, tiny_data: Path
) -> None:
    assert call("train", "--data", tiny_data, "--name", "mine", *TINY) == 0
    out = capsys.readouterr().out
    assert out.startswith("mine on moods, validation split, n = 12")
    assert out.endswith(f"run: {Path('outputs') / 'mine'}\n")
    assert any("epoch 1/1" in message for message in caplog.messages)
    assert {MODEL, CONFIG, "history.jsonl", "evaluation.json", "README.md"} <= set(
        names(here / "outputs" / "mine")
    )


def test_the_preset_sets_what_the_command_line_does_not(capsys: Capture) -> None:
    assert call("train", "--preset", "classic", "--hidden_dim", "7", "--print_config") == 0
    printed = capsys.readouterr().out.splitlines()
    assert {"preset: classic", "num_layers: 3", "hidden_dim: 7", "bidirectional: false"} <= set(
        printed
    )


def test_a_config_file_sets_what_the_command_line_does_not(capsys: Capture, here: Path) -> None:
    (here / "config.yaml").write_text("preset: classic\nepochs: 9\nseed: 5\nhidden_dim: 7\n")
    assert call("train", "--config", "config.yaml", "--seed", "6", "--print_config") == 0
    printed = capsys.readouterr().out.splitlines()
    assert {"epochs: 9", "seed: 6", "hidden_dim: 7", "num_layers: 3"} <= set(printed)


def test_a_printed_config_can_be_given_back(capsys: Capture, here: Path) -> None:
    assert call("train", "--seed", "3", "--name", "x", "--print_config") == 0
    printed = capsys.readouterr().out
    (here / "config.yaml").write_text(printed)
    assert call("train", "--config", "config.yaml", "--print_config") == 0
    assert capsys.readouterr().out == printed


def test_test_prints_the_tables_beside_fp16_and_the_baselines(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, here: Path, tiny_run: Path
) -> None:
    # The processes that time it are real; only they need not go on for long.
    monkeypatch.setattr(testing, "_MIN_SECONDS", 0.0)
    shutil.copytree(tiny_run, here / "outputs" / "tiny")
    assert call("test", "--device", "cpu") == 0
    out = capsys.readouterr().out
    assert out.startswith("tiny on moods, test split, n = 12")
    for part in ("most frequent class", "TF-IDF + linear SVM", "macro average", "ECE"):
        assert part in out
    (said,) = [line for line in out.splitlines() if line.startswith("tiny (fp16): ")]
    assert re.fullmatch(r".*(fourth decimal|[+-]0\.\d{4}); \d\d% of the size", said)
    title, table = out.split("ms per one batch of size 32")[1].split("\n\n")[:2]
    assert "CPU threads: 1" in title
    header, _, *rows = table.splitlines()
    assert header.split() == ["model", "GPU", "CPU"]
    assert [re.split("  +", row)[:2] for row in rows] == [["tiny", "–"], ["tiny (fp16)", "–"]]
    assert all(float(re.split("  +", row)[2].rstrip(" *")) > 0 for row in rows)
    assert names(here / "outputs") == ["tiny"]
    record = json.loads((here / "outputs" / "tiny" / "latency.json").read_text(encoding="utf-8"))
    assert [each["model"] for each in record] == ["tiny", "tiny (fp16)"]


def test_test_prints_one_json_object(capsys: Capture, here: Path, tiny_run: Path) -> None:
    run = here / "tiny"
    shutil.copytree(tiny_run, run)
    assert call("test", "--weights", run, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record == json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    assert (record["model"], record["split"], record["n"]) == ("tiny", "test", 12)


@pytest.mark.parametrize(
    "text", ["", "null", "123", "[1, 2]", "{a: b}", "true", "~", "😂", "a: b", "-_- tired"]
)
def test_predict_takes_any_text_as_it_is(capsys: Capture, tiny_run: Path, text: str) -> None:
    assert call("predict", "--weights", tiny_run, text, "--json") == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["text"] == text


def test_predict_takes_a_text_that_looks_like_a_flag_behind_dashes(
    capsys: Capture, tiny_run: Path
) -> None:
    assert call("predict", "--weights", tiny_run, "--json", "--", "--sad", "-1") == 0
    assert [each["text"] for each in json.loads(capsys.readouterr().out)] == ["--sad", "-1"]


def test_predict_answers_a_text_of_100000_characters(
    capsys: Capture, caplog: pytest.LogCaptureFixture, tiny_run: Path
) -> None:
    assert call("predict", "--weights", tiny_run, "happy " * 16_700) == 0
    assert "happy" in capsys.readouterr().out
    assert any(message.startswith("1 text") and "cut" in message for message in caplog.messages)


def test_predict_refuses_an_argument_that_is_not_utf8(capsys: Capture, tiny_run: Path) -> None:
    # What the interpreter makes of the byte 0xE9 in an argument.
    assert call("predict", "--weights", tiny_run, "caf\udce9") == 2
    assert "UTF-8" in error_line(capsys)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_predict_answers_a_file(
    capsys: Capture, caplog: pytest.LogCaptureFixture, here: Path, texts: Path, tiny_run: Path,
    zipped: bool, raw: bool,
) -> None:  # fmt: skip
    if zipped:
        (here / "in.csv.gz").write_bytes(gzip.compress(texts.read_bytes()))
        texts.unlink()
    given = here / ("in.csv.gz" if zipped else "in.csv")
    arguments = ["predict", "--weights", tiny_run, "--csv", given, *(["--raw"] if raw else [])]
    assert call(*arguments) == 0
    assert capsys.readouterr().out == ""
    assert any(message.startswith("2 rows answered") for message in caplog.messages)
    assert names(here) == sorted([given.name, "in_predictions.csv"])
    with (here / "in_predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == ["so happy", "=1+1" if raw else "'=1+1"]
    assert [row["id"] for row in rows] == ["1", "2"]


def test_predict_writes_where_it_is_told(here: Path, texts: Path, tiny_run: Path) -> None:
    assert call("predict", "--weights", tiny_run, "--csv", texts, "--output_path", "out.csv") == 0
    assert names(here) == ["in.csv", "out.csv"]


WRONG_USE: list[tuple[list[str], str]] = [
    (["nonsense"], "train, test, predict"),
    (["predict"], "--csv"),
    (["predict", "hi", "--csv", "in.csv"], "either"),
    (["predict", "hi", "--output_path", "out.csv"], "--output_path"),
    (["predict", "hi"], "--weights"),
    (["predict", "hi", "--weights", "nowhere"], "nowhere"),
    (["predict", "hi", "--weights", "in.csv"], "in.csv"),
    (["predict", "--weights", "RUN", "--csv", "nowhere.csv"], "nowhere.csv"),
    (["predict", "--weights", "RUN", "--csv", "folder"], "folder"),
    (["predict", "--weights", "RUN", "--csv", "unknown.xyz"], "unknown.xyz"),
    (["predict", "--weights", "RUN", "--csv", "empty.csv"], "empty.csv"),
    (["predict", "--weights", "RUN", "--csv", "broken.csv"], "broken.csv, line 3"),
    (["predict", "--weights", "RUN", "--csv", "taken.csv"], "predicted_label"),
    (["predict", "--weights", "RUN", "--csv", "in.csv", "--text_column", "x"], "--text_column"),
    (["predict", "--weights", "RUN", "--csv", "in.csv", "--output_path", "in.csv"], "in.csv"),
    (["predict", "--weights", "RUN", "--csv", "in.csv", "--output_path", "folder"], "folder"),
    (["predict", "--weights", "RUN", "--csv", "in.csv", "--output_path", "no/o.csv"], "no"),
    (["test"], "--weights"),
    (["test", "--weights", "nowhere"], "nowhere"),
    (["test", "--weights", "RUN/model.safetensors"], "--data"),
    (["test", "--weights", "RUN", "--data", "nowhere.csv"], "nowhere.csv"),
    (["test", "--weights", "RUN", "--data", "in.csv"], "label"),
    (["test", "--weights", "RUN", "--data", "one-class.csv"], "joy"),
    (["test", "--weights", "RUN", "--val_path", "in.csv", "--split", "validation"], "train_path"),
    (["test", "--weights", "cut-off"], "--resume"),
    (["compress"], "--weights"),
    (["compress", "--weights", "nowhere"], "nowhere"),
    (["compress", "--weights", "RUN/model.safetensors"], "run directory"),
    (["compress", "--weights", "cut-off"], "--resume"),
    (["compare"], "weights"),
    (["compare", "nowhere"], "nowhere"),
    (["compare", "RUN", "--batch_sizes", "0"], "--batch_sizes"),
    (["compare", "RUN", "--output_path", "folder"], "folder"),
    (["compare", "RUN", "--data", "one-class.csv"], "one class"),
    (["train", "--epochs", "0"], "--epochs"),
    (["train", "--data", "nowhere.csv"], "nowhere.csv"),
    (["train", "--data", "one-class.csv"], "joy"),
    (["train", "--overwrite", "--resume"], "--resume"),
    (["train", "--resume"], "resume"),
    (["train", "--data", "DATA", "--name", "a/b"], "--name"),
    (["train", "--data", "DATA", "--name", ".."], "--name"),
    (["train", "--data", "DATA", "--name", "folder", "--output_dir", "."], "folder"),
]


@pytest.mark.parametrize(
    ("arguments", "says"), WRONG_USE, ids=[" ".join(arguments) for arguments, _ in WRONG_USE]
)
def test_wrong_use_is_one_line_and_exit_code_2(
    capsys: Capture, here: Path, texts: Path, tiny_run: Path, tiny_data: Path,
    arguments: list[str], says: str,
) -> None:  # fmt: skip
    (here / "folder").mkdir()
    (here / "unknown.xyz").write_text("text\nhi\n")
    (here / "empty.csv").write_text("")
    (here / "broken.csv").write_text("text,id\nhi,1\nhi,2,3\nhi,4\n")
    (here / "taken.csv").write_text("text,predicted_label\nhi,1\n")
    (here / "one-class.csv").write_text("text,label\n" + "so happy,joy\n" * 30)
    shutil.copytree(tiny_run, here / "cut-off")
    (here / "cut-off" / CHECKPOINT).write_bytes(b"state")
    before = names(here)
    given = [
        word.replace("RUN", str(tiny_run)).replace("DATA", str(tiny_data)) for word in arguments
    ]
    assert call(*given) == 2
    assert says in error_line(capsys)
    assert names(here) == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "--no_such_flag"], "no_such_flag"),
        (["train", "--epochs", "many"], "epochs"),
        (["train", "--preset", "huge"], "preset"),
        (["train", "--precision", "int8"], "precision"),
        (["test", "--split", "dev"], "split"),
        (["test", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["predict", "hi", "--device", "tpu"], "device"),
        (["compress", "--method", "int3"], "method"),
        (["compare", "--split", "train"], "split"),
        (["compare", "--threads", "many"], "threads"),
    ],
    ids=str,
)
def test_a_flag_that_is_not_there_or_does_not_take_the_value_is_named(
    capsys: Capture, here: Path, arguments: list[str], says: str
) -> None:
    assert call(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert says in captured.err.partition("error: ")[2]
    assert names(here) == []


@pytest.mark.parametrize(
    "flags",
    [["--name", "x" * 300], ["--name", "x", "--output_dir", "in.csv"]],
    ids=["long", "file"],
)
def test_a_run_that_the_file_system_refuses_is_one_line(
    capsys: Capture, here: Path, texts: Path, tiny_data: Path, flags: list[str]
) -> None:
    assert call("train", "--data", tiny_data, *flags, *TINY) in (1, 2)
    error_line(capsys)


def failing(error: BaseException) -> Callable[[inference.PredictConfig], None]:
    def fail(_: inference.PredictConfig) -> None:
        raise error

    return fail


def test_ctrl_c_ends_with_130(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "predict", failing(KeyboardInterrupt()))
    assert main(["predict", "hi"]) == 130
    assert "interrupted" in error_line(capsys)


def test_ctrl_c_while_training_says_how_to_go_on(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, here: Path, tiny_data: Path
) -> None:
    from lstm import training

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    arguments = ["train", "--data", tiny_data, "--name", "mine", *TINY]
    with monkeypatch.context() as patched:
        patched.setattr(training, "save_checkpoint", interrupt)
        assert call(*arguments) == 130
    assert "--resume" in error_line(capsys)
    assert call(*arguments, "--resume") == 0
    assert (here / "outputs" / "mine" / MODEL).exists()


def test_ctrl_c_while_answering_a_file_leaves_no_output(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, here: Path, texts: Path, tiny_run: Path
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(inference, "prediction_cells", interrupt)
    assert call("predict", "--weights", tiny_run, "--csv", texts) == 130
    error_line(capsys)
    assert names(here) == ["in.csv"]


def test_a_full_disk_is_one_line_and_leaves_no_output(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, here: Path, texts: Path, tiny_run: Path
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert call("predict", "--weights", tiny_run, "--csv", texts) == 1
    assert os.strerror(errno.ENOSPC) in error_line(capsys)
    assert names(here) == ["in.csv"]


def test_a_full_disk_while_training_is_one_line_and_leaves_no_run(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, here: Path, tiny_data: Path
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert call("train", "--data", tiny_data, "--name", "mine", *TINY) == 1
    assert os.strerror(errno.ENOSPC) in error_line(capsys)
    assert names(here / "outputs") == []


def shell(code: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Runs code in an interpreter of its own, as a user's shell runs the command."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", f"import sys; from featherweight.cli import main\n{code}"],
        text=True, stderr=subprocess.PIPE, env=environment, check=False, **options,
    )  # type: ignore[call-overload, no-any-return]  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_a_file_size_limit_is_one_line_and_leaves_no_output(here: Path, tiny_run: Path) -> None:
    (here / "in.csv").write_text("text\n" + "so happy\n" * 5_000)
    arguments = ["predict", "--weights", str(tiny_run), "--csv", "in.csv"]
    done = shell(
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        f"sys.exit(main({arguments}))"
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("featherweight: ")
    assert names(here) == ["in.csv"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_behind_stdout_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = shell("sys.exit(main(['--help']))", stdout=full)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such pipes")
def test_a_reader_that_leaves_is_no_failure(tiny_run: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    arguments = ["predict", "--weights", str(tiny_run), *["so happy"] * 2_000]
    try:
        done = shell(f"sys.exit(main({arguments}))", stdout=write)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("library", "extra"), [("tabulate", "train"), ("torch", "train")])
def test_a_missing_library_is_one_line_with_the_extra_to_install(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, library: str, extra: str
) -> None:
    error = ModuleNotFoundError(f"No module named {library!r}", name=f"{library}.inside")
    monkeypatch.setattr(inference, "predict", failing(error))
    assert main(["predict", "hi"]) == 1
    line = error_line(capsys)
    assert f"featherweight[{extra}]" in line
    assert library in line


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (ZeroDivisionError(), ModuleNotFoundError("x", name="lstm.nothing")):
        monkeypatch.setattr(inference, "predict", failing(error))
        with pytest.raises(type(error)):
            main(["predict", "hi"])
