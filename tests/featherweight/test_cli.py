import csv
import dataclasses
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

import docstring_parser
import pytest

from compress.config import CompressConfig
from featherweight import cli, inference, run_inference, testing
from featherweight.cli import main
from featherweight.config import CompareConfig, EvaluationConfig, PredictConfig, PushConfig
from featherweight.run import CHECKPOINT, CONFIG, MODEL, TRANSFORMER
from lstm.config import TrainConfig
from transformer_eval.architecture import build
from transformer_eval.config import FeaturesConfig, FinetuneConfig, VersusConfig
from transformer_eval.registry import Pretrained

Capture = pytest.CaptureFixture[str]
CONFIGS = {
    "train": TrainConfig, "test": EvaluationConfig, "predict": PredictConfig,
    "compress": CompressConfig, "compare": CompareConfig, "finetune": FinetuneConfig,
    "features": FeaturesConfig, "test_transformer": VersusConfig, "push": PushConfig,
}  # fmt: skip
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


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny BERT with random weights."""
    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    sizes = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "vocab_size": 300,
    }  # fmt: skip
    labels = ("anger", "joy", "sadness")
    build(Pretrained("acme/tiny", "bert", sizes), ["so happy", "so sad"], labels, folder)
    return folder


@pytest.fixture(scope="module")
def tiny_features(
    tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, tiny_data: Path
) -> Path:
    """The directory of a finished run of a frozen encoder."""
    folder = tmp_path_factory.mktemp("features")
    assert call("features", *frozen(folder, tiny_bert, tiny_data), "--name", "frozen") == 0
    return folder / "outputs" / "frozen"


def frozen(folder: Path, model: Path, data: Path) -> list[str | Path]:
    """Returns flags of `features` that write into a folder only."""
    return [
        "--model", model, "--data", data, "--device", "cpu",
        "--output_dir", folder / "outputs", "--cache_dir", folder / "cache",
    ]  # fmt: skip


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_every_verb_with_what_it_does(capsys: Capture, flag: str) -> None:
    assert main([flag]) == 0
    captured = capsys.readouterr()
    for name, verb in cli.VERBS.items():
        assert name in captured.out
        assert str(verb.__doc__) in captured.out
    assert captured.err == ""


def test_the_help_is_aligned_and_fits_a_terminal(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = lines[lines.index("verbs:") + 1 :][: len(cli.VERBS)]
    assert [line.split()[0] for line in listed] == list(cli.VERBS)
    documented = zip(listed, cli.VERBS.values(), strict=True)
    assert len({line.index(str(verb.__doc__)) for line, verb in documented}) == 1
    assert max(map(len, lines)) <= 100


def test_the_command_alone_shows_the_help(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["featherweight"])
    assert main() == 0
    assert "usage: featherweight" in capsys.readouterr().out


def test_every_verb_has_its_config() -> None:
    assert set(CONFIGS) == set(cli.VERBS)


@pytest.mark.parametrize("verb", CONFIGS)
def test_the_help_of_a_verb_lists_its_flags_and_what_they_mean(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert call(verb, "--help") == 0
    out = capsys.readouterr().out
    meant = {
        parameter.arg_name: parameter.description
        for base in filter(dataclasses.is_dataclass, reversed(CONFIGS[verb].__mro__))
        for parameter in docstring_parser.parse_from_object(base).params
    }
    unbroken = "".join(out.split())
    positional = {"predict": "texts", "compare": "weights"}.get(verb)
    for field in dataclasses.fields(CONFIGS[verb]):
        flag = field.name if field.name == positional else f"--{field.name}"
        assert re.search(rf"^  {flag}\b", out, re.MULTILINE), flag
        assert "".join(str(meant[field.name]).split()) in unbroken
    for flag in ("--config", "--print_config"):
        assert flag in out


@pytest.mark.parametrize("verb", ["finetune", "features", "test_transformer"])
def test_several_models_follow_one_flag(capsys: Capture, verb: str) -> None:
    assert call(verb, "--model", "a", "b/c", "./d", "--data", "x", "--print_config") == 0
    printed = capsys.readouterr().out
    assert "model:\n- a\n- b/c\n- ./d\n" in printed
    assert "data: x\n" in printed


@pytest.mark.parametrize("verb", ["finetune", "features", "test_transformer"])
def test_a_config_file_lists_several_models(capsys: Capture, here: Path, verb: str) -> None:
    (here / "config.yaml").write_text("model: [a, b]\n")
    assert call(verb, "--config", "config.yaml", "--print_config") == 0
    assert "model:\n- a\n- b\n" in capsys.readouterr().out


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
    (["finetune", "--epochs", "0"], "--epochs"),
    (["finetune", "--max_length", "2"], "--max_length"),
    (["finetune", "--overwrite", "--resume"], "--resume"),
    (["finetune", "--model", "./nowhere", "--data", "DATA"], "./nowhere"),
    (["finetune", "--model", "folder", "--data", "DATA"], "folder"),
    (["finetune", "--model", "BERT", "BERT"], "twice"),
    (["finetune", "--model", "BERT", "--data", "nowhere.csv"], "nowhere.csv"),
    (["finetune", "--model", "BERT", "--precision", "fp16", "--device", "cpu"], "--precision"),
    (["features", "--name", "a/b"], "--name"),
    (["features", "--model", "./nowhere", "--data", "DATA"], "./nowhere"),
    (["features", "--model", "folder", "--data", "DATA"], "folder"),
    (["features", "--model", "RUN", "--data", "DATA"], "RUN"),
    (["features", "--model", "BERT", "--data", "one-class.csv"], "joy"),
    (["features", "--model", "BERT", "--save_embeddings", "x.csv"], ".npz"),
    (["features", "--model", "BERT", "--save_embeddings", "no/x.npz"], "no folder no"),
    (["test_transformer", "--model", "./nowhere", "--data", "DATA"], "./nowhere"),
    (["test_transformer", "--model", "BERT", "--batch_sizes", "0"], "--batch_sizes"),
    (["test_transformer", "--model", "BERT", "--weights", "nowhere"], "nowhere"),
    (["test_transformer", "--model", "BERT", "--weights", "cut-off"], "--resume"),
    (["push", "--weights", "RUN"], "--repo_id"),
    (["push", "--weights", "RUN", "--repo_id", "no repository"], "--repo_id"),
    (["push", "--repo_id", "a/b"], "--weights"),
    (["push", "--repo_id", "a/b", "--weights", "folder", "--dry_run"], "folder"),
    (["push", "--repo_id", "a/b", "--weights", "cut-off", "--dry_run"], "--resume"),
]


@pytest.mark.parametrize(
    ("arguments", "says"), WRONG_USE, ids=[" ".join(arguments) for arguments, _ in WRONG_USE]
)
def test_wrong_use_is_one_line_and_exit_code_2(
    capsys: Capture, here: Path, texts: Path, tiny_run: Path, tiny_data: Path, tiny_bert: Path,
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
    places = {"RUN": tiny_run, "DATA": tiny_data, "BERT": tiny_bert}

    def placed(word: str) -> str:
        for name, path in places.items():
            word = word.replace(name, str(path))
        return word

    assert call(*map(placed, arguments)) == 2
    assert placed(says) in error_line(capsys)
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
        (["finetune", "--precision", "int8"], "precision"),
        (["finetune", "--model"], "model"),
        (["features", "--pooling", "max"], "pooling"),
        (["features", "--epochs", "1"], "epochs"),
        (["test_transformer", "--split", "dev"], "split"),
        (["push", "--token", "secret"], "token"),
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


def test_ctrl_c_while_fine_tuning_says_how_to_go_on(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, here: Path, tiny_bert: Path, tiny_data: Path
) -> None:
    from transformer_eval import finetuning

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    arguments = [
        "finetune", "--model", tiny_bert, "--data", tiny_data, "--name", "mine", "--epochs", "1",
        "--device", "cpu",
    ]  # fmt: skip
    with monkeypatch.context() as patched:
        patched.setattr(finetuning, "training_curves", interrupt)
        assert call(*arguments) == 130
    assert "go on with the same command and --resume" in error_line(capsys)
    assert call(*arguments, "--resume") == 0
    out = capsys.readouterr().out
    assert out.startswith("mine on moods, validation split, n = 12")
    assert out.endswith(f"run: {Path('outputs') / 'mine'}\n")
    assert (here / "outputs" / "mine" / TRANSFORMER / MODEL).exists()


def test_ctrl_c_while_embedding_is_one_line_and_leaves_no_run(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, here: Path, tiny_bert: Path, tiny_data: Path
) -> None:
    from transformer_eval.encoder import Encoder

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Encoder, "embed", interrupt)
    assert call("features", *frozen(here, tiny_bert, tiny_data)) == 130
    assert error_line(capsys) == "featherweight: interrupted"
    assert names(here) == []


def test_features_prints_the_table_and_where_the_run_is(
    capsys: Capture, here: Path, tiny_bert: Path, tiny_data: Path
) -> None:
    assert call("features", *frozen(here, tiny_bert, tiny_data)) == 0
    out = capsys.readouterr().out
    assert out.startswith("tiny-bert-mean-moods on moods, validation split, n = 12")
    assert "most frequent class" in out
    assert out.endswith(f"run: {here / 'outputs' / 'tiny-bert-mean-moods'}\n")


@pytest.mark.parametrize("kind", ["features", "transformer"])
def test_predict_answers_with_a_run_of_either_kind(
    capsys: Capture, here: Path, texts: Path, tiny_features: Path, tiny_bert: Path, kind: str
) -> None:
    run = tiny_features
    if kind == "transformer":
        run = here / "tuned"
        shutil.copytree(tiny_bert, run / TRANSFORMER)
    assert call("predict", "--weights", run, "so happy", "=1+1", "--json") == 0
    answers = json.loads(capsys.readouterr().out)
    assert [each["text"] for each in answers] == ["so happy", "=1+1"]
    emotions = [each["predicted_emotion"] for each in answers]
    assert set(emotions) <= {"anger", "joy", "sadness"}
    assert call("predict", "--weights", run, "--csv", texts) == 0
    with (here / "in_predictions.csv").open(newline="", encoding="utf-8") as file:
        assert [row["predicted_emotion"] for row in csv.DictReader(file)] == emotions
    assert run_inference(run, texts) == [each["predicted_label"] for each in answers]


def test_predict_with_an_encoder_that_is_gone_is_one_line(
    capsys: Capture, here: Path, tiny_bert: Path, tiny_data: Path
) -> None:
    shutil.copytree(tiny_bert, here / "encoder")
    assert call("features", *frozen(here, here / "encoder", tiny_data), "--name", "mine") == 0
    shutil.rmtree(here / "encoder")
    capsys.readouterr()
    assert call("predict", "--weights", here / "outputs" / "mine", "so happy") == 2
    assert str(here / "encoder") in error_line(capsys)


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


BLOCKED = """
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {library!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
sys.exit(main({arguments!r}))
"""


@pytest.mark.parametrize(
    ("library", "arguments"),
    [
        ("transformers", ["finetune"]),
        ("transformers", ["features"]),
        ("transformers", ["test_transformer", "--model", "bert-base", "--latency_only"]),
        ("transformers", ["predict", "so happy", "--weights", "FEATURES"]),
        ("transformers", ["predict", "so happy", "--weights", "BERT"]),
        ("accelerate", ["finetune"]),
    ],
    ids=str,
)
def test_without_the_libraries_of_transformers_their_extra_is_named(
    here: Path, tiny_features: Path, tiny_bert: Path, library: str, arguments: list[str]
) -> None:
    places = {"FEATURES": str(tiny_features), "BERT": str(tiny_bert)}
    given = [places.get(word, word) for word in arguments]
    done = shell(BLOCKED.format(library=library, arguments=given), stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"featherweight: {library} is not installed; get it with: "
        "pip install 'featherweight[transformers]'\n"
    )
    assert names(here) == []


@pytest.mark.parametrize("verb", ["finetune", "features", "test_transformer"])
def test_the_help_needs_no_library_of_transformers(verb: str) -> None:
    done = shell(
        BLOCKED.format(library="transformers", arguments=[verb, "--help"]), stdout=subprocess.PIPE
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: featherweight {verb}")


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (ZeroDivisionError(), ModuleNotFoundError("x", name="lstm.nothing")):
        monkeypatch.setattr(inference, "predict", failing(error))
        with pytest.raises(type(error)):
            main(["predict", "hi"])
