import csv
import dataclasses
import gzip
import json
import re
import shutil
import sys
from pathlib import Path

import docstring_parser
import pytest

from compress.config import CompressConfig
from edge.config import ExportConfig, ServeConfig, VerifyConfig
from featherweight import cli, run_inference
from featherweight import test as testing
from featherweight.cli import main
from featherweight.config import CompareConfig, EvaluationConfig
from featherweight.hub.config import PushConfig
from featherweight.prediction.config import PredictConfig
from featherweight.run import CONFIG, MODEL, TRANSFORMER
from lstm.config import TrainConfig
from tests.helpers.command_line import TINY, Capture, call, error_line, frozen, names
from transformer_eval.config import FeaturesConfig, FinetuneConfig, TransformerTestConfig

CONFIGS = {
    "train": TrainConfig, "test": EvaluationConfig, "predict": PredictConfig,
    "compress": CompressConfig, "compare": CompareConfig, "finetune": FinetuneConfig,
    "features": FeaturesConfig, "test_transformer": TransformerTestConfig, "push": PushConfig,
    "export": ExportConfig, "verify": VerifyConfig, "serve": ServeConfig,
}  # fmt: skip


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_every_verb_with_its_description(capsys: Capture, flag: str) -> None:
    assert main([flag]) == 0
    captured = capsys.readouterr()
    for name, verb in cli.VERBS.items():
        assert name in captured.out
        assert str(verb.__doc__) in captured.out
    assert captured.err == ""


def test_the_help_is_aligned_and_fits_a_terminal(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = lines[lines.index("commands:") + 1 :][: len(cli.VERBS)]
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
def test_help_of_a_verb_describes_its_flags(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert call(verb, "--help") == 0
    out = capsys.readouterr().out
    descriptions = {
        parameter.arg_name: parameter.description
        for base in filter(dataclasses.is_dataclass, reversed(CONFIGS[verb].__mro__))
        for parameter in docstring_parser.parse_from_object(base).params
    }
    unbroken = "".join(out.split())
    positional = {"predict": "texts", "compare": "weights", "verify": "weights"}.get(verb)
    for field in dataclasses.fields(CONFIGS[verb]):
        flag = field.name if field.name == positional else f"--{field.name}"
        assert re.search(rf"^  {flag}\b", out, re.MULTILINE), flag
        assert "".join(str(descriptions[field.name]).split()) in unbroken
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


def test_training_prints_the_tables_and_the_path_of_the_run(
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


def test_preset_sets_defaults(capsys: Capture) -> None:
    assert call("train", "--preset", "classic", "--hidden_dim", "7", "--print_config") == 0
    printed = capsys.readouterr().out.splitlines()
    assert {"preset: classic", "num_layers: 3", "hidden_dim: 7", "bidirectional: false"} <= set(
        printed
    )


def test_flags_override_the_config_file(capsys: Capture, here: Path) -> None:
    (here / "config.yaml").write_text("preset: classic\nepochs: 9\nseed: 5\nhidden_dim: 7\n")
    assert call("train", "--config", "config.yaml", "--seed", "6", "--print_config") == 0
    printed = capsys.readouterr().out.splitlines()
    assert {"epochs: 9", "seed: 6", "hidden_dim: 7", "num_layers: 3"} <= set(printed)


def test_printed_config_can_be_read(capsys: Capture, here: Path) -> None:
    assert call("train", "--seed", "3", "--name", "x", "--print_config") == 0
    printed = capsys.readouterr().out
    (here / "config.yaml").write_text(printed)
    assert call("train", "--config", "config.yaml", "--print_config") == 0
    assert capsys.readouterr().out == printed


def test_test_prints_tables_with_fp16_and_baselines(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, here: Path, tiny_run: Path
) -> None:
    # The worker processes are real, but do not need to run for long.
    monkeypatch.setattr(testing, "_MIN_SECONDS", 0.0)
    shutil.copytree(tiny_run, here / "outputs" / "tiny")
    assert call("test", "--device", "cpu") == 0
    out = capsys.readouterr().out
    assert out.startswith("tiny on moods, test split, n = 12")
    for part in ("most frequent class", "TF-IDF + linear SVM", "macro average", "ECE"):
        assert part in out
    (fp16,) = [line for line in out.splitlines() if line.startswith("tiny (fp16): ")]
    assert re.fullmatch(r".*(to four decimals|[+-]0\.\d{4}); \d\d% of the size", fp16)
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
    assert record == json.loads((run / "evaluation-test.json").read_text(encoding="utf-8"))
    assert (record["model"], record["split"], record["n"]) == ("tiny", "test", 12)


@pytest.mark.parametrize(
    "text", ["", "null", "123", "[1, 2]", "{a: b}", "true", "~", "😂", "a: b", "-_- tired"]
)
def test_predict_does_not_parse_texts(capsys: Capture, tiny_run: Path, text: str) -> None:
    assert call("predict", "--weights", tiny_run, text, "--json") == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["text"] == text


def test_predict_takes_texts_that_look_like_flags_after_dashes(
    capsys: Capture, tiny_run: Path
) -> None:
    assert call("predict", "--weights", tiny_run, "--json", "--", "--sad", "-1") == 0
    assert [each["text"] for each in json.loads(capsys.readouterr().out)] == ["--sad", "-1"]


def test_predict_classifies_a_text_of_100000_characters(
    capsys: Capture, caplog: pytest.LogCaptureFixture, tiny_run: Path
) -> None:
    assert call("predict", "--weights", tiny_run, "happy " * 16_700) == 0
    assert "happy" in capsys.readouterr().out
    assert any(message.startswith("1 text") for message in caplog.messages)


def test_predict_refuses_an_argument_that_is_not_utf8(capsys: Capture, tiny_run: Path) -> None:
    # The interpreter decodes the byte 0xE9 in an argument to this.
    assert call("predict", "--weights", tiny_run, "caf\udce9") == 2
    assert "UTF-8" in error_line(capsys)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_predict_classifies_a_file(
    capsys: Capture, caplog: pytest.LogCaptureFixture, here: Path, texts: Path, tiny_run: Path,
    zipped: bool, raw: bool,
) -> None:  # fmt: skip
    if zipped:
        (here / "in.csv.gz").write_bytes(gzip.compress(texts.read_bytes()))
        texts.unlink()
    path = here / ("in.csv.gz" if zipped else "in.csv")
    arguments = ["predict", "--weights", tiny_run, "--csv", path, *(["--raw"] if raw else [])]
    assert call(*arguments) == 0
    assert capsys.readouterr().out == ""
    assert any(message.startswith("2 rows predicted") for message in caplog.messages)
    assert names(here) == sorted([path.name, "in_predictions.csv"])
    with (here / "in_predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == ["so happy", "=1+1" if raw else "'=1+1"]
    assert [row["id"] for row in rows] == ["1", "2"]


def test_predict_writes_to_output_path(here: Path, texts: Path, tiny_run: Path) -> None:
    assert call("predict", "--weights", tiny_run, "--csv", texts, "--output_path", "out.csv") == 0
    assert names(here) == ["in.csv", "out.csv"]


def test_features_prints_the_table_and_the_path_of_the_run(
    capsys: Capture, here: Path, tiny_bert: Path, tiny_data: Path
) -> None:
    assert call("features", *frozen(here, tiny_bert, tiny_data)) == 0
    out = capsys.readouterr().out
    assert out.startswith("tiny-bert-mean-moods on moods, validation split, n = 12")
    assert "most frequent class" in out
    assert out.endswith(f"run: {here / 'outputs' / 'tiny-bert-mean-moods'}\n")


@pytest.mark.parametrize("kind", ["features", "transformer"])
def test_predict_with_transformer_runs(
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


def test_predict_with_a_missing_encoder_is_a_one_line_error(
    capsys: Capture, here: Path, tiny_bert: Path, tiny_data: Path
) -> None:
    shutil.copytree(tiny_bert, here / "encoder")
    assert call("features", *frozen(here, here / "encoder", tiny_data), "--name", "mine") == 0
    shutil.rmtree(here / "encoder")
    capsys.readouterr()
    assert call("predict", "--weights", here / "outputs" / "mine", "so happy") == 2
    assert str(here / "encoder") in error_line(capsys)
