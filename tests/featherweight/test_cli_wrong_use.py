import shutil
from pathlib import Path

import pytest

from featherweight.run import CHECKPOINT
from tests.helpers.command_line import TINY, Capture, call, error_line, names

WRONG_USE: list[tuple[list[str], str]] = [
    (["nonsense"], "train, test, predict"),
    (["predict"], "--csv"),
    (["predict", "hi", "--csv", "in.csv"], "either"),
    (["predict", "hi", "--output_path", "out.csv"], "--output_path"),
    (["predict", "hi", "--weights", "nowhere"], "nowhere"),
    (["predict", "hi", "--weights", "in.csv"], "in.csv"),
    (["predict", "--weights", "RUN", "--csv", "nowhere.csv"], "nowhere.csv"),
    (["predict", "--weights", "RUN", "--csv", "folder"], "folder"),
    (["predict", "--weights", "RUN", "--csv", "unknown.xyz"], "unknown.xyz"),
    (["predict", "--weights", "RUN", "--csv", "empty.csv"], "empty.csv"),
    (
        ["predict", "--weights", "RUN", "--csv", "broken.csv", "--bad_rows", "fail"],
        "broken.csv, line 2",
    ),
    (
        ["predict", "--weights", "RUN", "--csv", "taken.csv", "--answer_prefix", "my_"],
        "my_confidence",
    ),
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
    (here / "broken.csv").write_text("text,id\nhi,2,3\nhi,4\n")
    (here / "taken.csv").write_text("text,my_confidence\nhi,1\n")
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
def test_unknown_flag_or_value_is_named(
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
def test_name_that_the_file_system_refuses_is_a_one_line_error(
    capsys: Capture, here: Path, texts: Path, tiny_data: Path, flags: list[str]
) -> None:
    assert call("train", "--data", tiny_data, *flags, *TINY) in (1, 2)
    error_line(capsys)
