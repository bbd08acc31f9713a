import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification

from featherweight import contest, latency, load
from featherweight.cli import main
from featherweight.dataset import DataConfig, load_dataset
from featherweight.errors import FeatherweightError, UsageError, WeightsError
from featherweight.evaluation import evaluate
from featherweight.run import TRANSFORMER, Run
from tests.hub_server import SIGNATURE, TOKEN, PlayedHub, Repository, environment, serve
from transformer_eval.architecture import build
from transformer_eval.config import VersusConfig
from transformer_eval.registry import EMOTIONS, REGISTRY, Pretrained
from transformer_eval.versus import timed_only, versus

SCRIPT = Path(__file__).parents[2] / "test_transformer.py"
BASELINES = ["most frequent class", "TF-IDF + linear SVM"]
LABELS = ("sadness", "anger", "joy")
NUMBERED = {index: f"LABEL_{index}" for index in range(3)}
FILES = {
    "report.json", "report.csv", "report.md", "report.html", "latency.json",
    "trade_off.png", "confusion_matrices.png", "per_class.png",
}  # fmt: skip
# The verb in a process of its own, timed for as short as can be.
PROGRAM = """
import sys
from functools import partial
import datasets
datasets.config.USE_PARQUET_EXPORT = False  # it asks a second host, which is not played here
from featherweight import cli, contest, latency
contest.measure = partial(latency.measure, min_iterations=1, min_seconds=0.0)
sys.exit(cli.main(["test_transformer", *sys.argv[1:]]))
"""

Record = dict[str, Any]


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times nothing, since that takes a process for each contender, and seconds."""
    monkeypatch.setattr(contest, "measure", lambda *_, **__: [])


def compared(
    *models: Path | str, data: Path | str, lstms: Sequence[Path] = (), **flags: Any
) -> Record:
    config = VersusConfig(model=[*map(str, models)], data=str(data), **{"device": "cpu"} | flags)
    return versus(config, lstms)[0]


def refusal(
    *models: Path | str, data: Path | str, kind: type[FeatherweightError] = UsageError, **flags: Any
) -> str:
    with pytest.raises(kind) as error:
        compared(*models, data=data, **flags)
    assert "\n" not in str(error.value)
    return str(error.value)


def names(record: Record) -> list[str]:
    return [row["model"] for row in record["rows"]]


def quality(record: Record, model: str) -> Record:
    (row,) = (row for row in record["rows"] if row["model"] == model)
    return {name: row[name] for name in ("scores", "per_class", "confusion_matrix", "intervals")}


def copied(origin: Path, folder: Path, **entries: Any) -> Path:
    """A copy of a model with other entries in its config."""
    shutil.copytree(origin, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | entries))
    return folder


def headless(origin: Path, folder: Path, **entries: Any) -> Path:
    """A copy of a model without its head."""
    shutil.copytree(origin, folder)
    AutoModel.from_pretrained(folder).save_pretrained(folder)
    return copied(folder, folder.with_name(f"{folder.name}-base"), **entries)


def own_run(model: Path, data: Path, path: Path) -> Path:
    """A run directory such as `finetune` leaves, as far as it is looked at."""
    shutil.copytree(model, path / TRANSFORMER)
    Run(path).write_json("config.json", {"model": ["bert"], **asdict(DataConfig(data=str(data)))})
    Run(path).write_json("data.json", load_dataset(DataConfig(data=str(data))).identity())
    return path


# Rows


@pytest.mark.usefixtures("untimed")
def test_transformers_stand_beside_the_baselines(
    tiny_transformers: Mapping[str, Path], tiny_data: Path
) -> None:
    bert, electra = tiny_transformers["bert"], tiny_transformers["electra"]

    record = compared(bert, electra, data=tiny_data)

    assert names(record) == ["tiny-bert", "tiny-electra", *BASELINES]
    assert record["reference"] == "tiny-bert"
    assert record["data"]["name"] == "moods"
    assert (record["data"]["split"], record["data"]["n"]) == ("test", 12)
    for row, folder in zip(record["rows"], (bert, electra), strict=False):
        classifier = load(folder, "cpu")
        test = load_dataset(DataConfig(data=str(tiny_data)), classifier.labels).split("test")
        assert row["scores"] == evaluate(classifier, test, "moods").scores
        assert row["parameters"] == classifier.num_parameters()
        assert row["size_bytes"] == classifier.size_bytes()
        assert row["note"] == ""


@pytest.mark.usefixtures("untimed")
def test_the_lstm_comes_first_and_says_what_the_data_is(tiny_bert: Path, tiny_run: Path) -> None:
    record = compared(tiny_bert, data="", lstms=[tiny_run])

    assert names(record) == ["tiny", "tiny-bert", *BASELINES]
    assert record["reference"] == "tiny"
    assert record["data"]["name"] == "moods"
    assert record["rows"][0]["tests"] is None
    assert {"accuracy", "macro_f1"} == set(record["rows"][1]["tests"])


@pytest.mark.usefixtures("untimed")
def test_every_contender_answers_the_split_that_is_asked_for(
    tiny_bert: Path, tiny_run: Path
) -> None:
    config = VersusConfig(model=[str(tiny_bert)], split="train", device="cpu")

    record, evaluations = versus(config, [tiny_run])

    assert (record["data"]["split"], record["data"]["n"]) == ("train", 36)
    assert [it.model for it in evaluations] == ["tiny", "tiny-bert"]
    assert {(it.split, len(it.targets)) for it in evaluations} == {("train", 36)}


@pytest.mark.usefixtures("untimed")
def test_a_run_of_a_transformer_goes_by_its_name_and_knows_its_data(
    tiny_bert: Path, tiny_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    mine = own_run(tiny_bert, tiny_data, tmp_path / "mine")

    assert names(compared(mine, data="")) == ["mine", *BASELINES]
    assert names(compared(mine, data="", lstms=[tiny_run])) == ["tiny", "mine", *BASELINES]


@pytest.mark.usefixtures("untimed")
def test_runs_on_different_data_are_not_compared_unasked(
    tiny_bert: Path, tiny_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(tiny_data, tmp_path / "other")
    (other / "train.csv").write_text("text,label\nso sad,sadness\nso glad,joy\nso mad,anger\n")
    mine = own_run(tiny_bert, other, tmp_path / "mine")

    assert "different data" in refusal(mine, data="", lstms=[tiny_run])
    assert names(compared(mine, data=tiny_data, lstms=[tiny_run]))[:2] == ["tiny", "mine"]


def test_real_processes_time_a_transformer(
    tiny_bert: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = partial(latency.measure, min_iterations=1, min_seconds=0.0)
    monkeypatch.setattr(contest, "measure", quick)

    record = compared(tiny_bert, data=tiny_data, batch_sizes="3")

    (timing,) = record["rows"][0]["latencies"]
    assert (timing["device"], timing["batch_size"], timing["dtype"]) == ("cpu", 3, "fp32")
    assert timing["phases"]["total"]["p50"] > 0


# Classes


@pytest.mark.usefixtures("untimed")
def test_classes_are_matched_by_name(tiny_bert: Path, tiny_data: Path, tmp_path: Path) -> None:
    order = [1, 2, 0]
    id2label = {place: LABELS[index] for place, index in enumerate(order)}
    other = copied(tiny_bert, tmp_path / "other", id2label=id2label, label2id=None)
    tensors = load_file(other / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = tensors[name][order].clone()
    save_file(tensors, other / "model.safetensors", {"format": "pt"})

    together = compared(tiny_bert, other, data=tiny_data, split="train")

    assert quality(together, "other") == quality(together, "tiny-bert")
    answers = zip(*quality(together, "other")["confusion_matrix"], strict=True)
    assert sum(map(any, answers)) > 1
    # Whoever comes first numbers the classes of the record.
    alone = compared(other, data=tiny_data, split="train")
    assert alone["data"]["labels"] != together["data"]["labels"]
    scores = quality(together, "other")["scores"]
    assert quality(alone, "other")["scores"] == pytest.approx(scores)


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize(
    ("id2label", "stated"),
    [
        ({0: "Sadness", 1: "ANGER", 2: "jOy"}, ""),
        (NUMBERED, "sadness,anger,joy"),
        (NUMBERED, " Sadness , Anger,JOY "),
        ({0: "0", 1: "1", 2: "2"}, "sadness,anger,joy"),
        # Names that the model has itself count more than those stated.
        ({0: "sadness", 1: "anger", 2: "joy"}, "joy,sadness,anger"),
    ],
)
def test_classes_are_called_as_the_data_calls_them(
    tiny_bert: Path, tiny_data: Path, tmp_path: Path, id2label: dict[int, str], stated: str
) -> None:
    other = copied(tiny_bert, tmp_path / "other", id2label=id2label, label2id=None)

    record = compared(tiny_bert, other, data=tiny_data, split="train", model_labels=stated)

    assert quality(record, "other") == quality(record, "tiny-bert")


@pytest.mark.usefixtures("untimed")
def test_the_order_of_stated_names_matters(
    tiny_bert: Path, tiny_data: Path, tmp_path: Path
) -> None:
    other = copied(tiny_bert, tmp_path / "other", id2label=NUMBERED, label2id=None)
    flags = {"data": tiny_data, "split": "train"}

    right, wrong = (
        quality(compared(other, model_labels=stated, **flags), "other")
        for stated in ("sadness,anger,joy", "anger,joy,sadness")
    )

    assert right["scores"] != wrong["scores"]


@pytest.mark.parametrize("stated", ["", "sadness,anger", "sadness,anger,joy,fear"])
def test_numbers_without_names_are_refused(
    tiny_bert: Path, tiny_data: Path, tmp_path: Path, stated: str
) -> None:
    other = copied(tiny_bert, tmp_path / "other", id2label=NUMBERED, label2id=None)

    message = refusal(other, data=tiny_data, model_labels=stated)

    assert message.startswith("other only numbers its 3 classes")
    assert "--model_labels" in message


@pytest.mark.parametrize("stated", ["sadness", "sadness,,joy", "joy,joy,sadness"])
def test_stated_names_are_looked_at(tiny_bert: Path, tiny_data: Path, stated: str) -> None:
    assert f"--model_labels {stated}" in refusal(tiny_bert, data=tiny_data, model_labels=stated)


@pytest.mark.parametrize(
    ("id2label", "stated"),
    [
        ({0: "sadness", 1: "anger", 2: "love"}, ""),
        (NUMBERED, "sadness,anger,love"),
        ({0: "LABEL_0", 1: "anger", 2: "joy"}, ""),
    ],
)
def test_a_model_that_tells_other_classes_apart_is_refused(
    tiny_bert: Path, tiny_data: Path, tmp_path: Path, id2label: dict[int, str], stated: str
) -> None:
    other = copied(tiny_bert, tmp_path / "other", id2label=id2label, label2id=None)

    message = refusal(other, data=tiny_data, model_labels=stated)

    assert "other tells" in message and "moods has anger, joy, sadness" in message
    assert "--latency_only" in message


@pytest.mark.parametrize("names", [("joy", "joy"), ("joy", "Joy"), ("joy", "love")])
def test_a_model_with_more_classes_is_refused(
    tiny_bert: Path, tiny_data: Path, tmp_path: Path, names: tuple[str, str]
) -> None:
    # Two classes of one name are as little comparable as one class too many.
    labels = dict(enumerate(("sadness", "anger", *names)))
    other = shutil.copytree(tiny_bert, tmp_path / "other")
    AutoModelForSequenceClassification.from_pretrained(
        other, num_labels=4, id2label=labels, label2id={}, ignore_mismatched_sizes=True
    ).save_pretrained(other)

    assert "not comparable" in refusal(other, data=tiny_data)


def test_data_with_numbers_for_labels_is_named_by_the_flag(
    tiny_bert: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contest, "measure", lambda *_, **__: [])
    data = tmp_path / "moods"
    data.mkdir()
    for path in tiny_data.iterdir():
        text = path.read_text(encoding="utf-8")
        for index, label in enumerate(LABELS):
            text = text.replace(f",{label}\n", f",{index}\n")
        (data / path.name).write_text(text, encoding="utf-8")
    assert ",joy" not in (data / "train.csv").read_text(encoding="utf-8")

    assert "0, 1, 2" in refusal(tiny_bert, data=data)
    named = compared(tiny_bert, data=data, labels=",".join(LABELS))
    assert quality(named, "tiny-bert") == quality(compared(tiny_bert, data=tiny_data), "tiny-bert")


# Models that are only timed


def test_a_model_without_a_head_is_refused_unless_it_is_only_timed(
    tiny_bert: Path, tiny_data: Path, tmp_path: Path
) -> None:
    base = headless(tiny_bert, tmp_path / "base")

    assert "featherweight finetune" in refusal(base, data=tiny_data, kind=WeightsError)


@pytest.mark.usefixtures("untimed")
# As base models have them: two classes without names, where the data has three.
@pytest.mark.parametrize("id2label", [{0: "LABEL_0", 1: "LABEL_1"}, NUMBERED])
def test_a_model_without_a_head_is_timed_with_a_new_one(
    tiny_bert: Path, tiny_run: Path, tiny_data: Path, tmp_path: Path, id2label: dict[int, str]
) -> None:
    base = headless(tiny_bert, tmp_path / "any", id2label=id2label, label2id=None)

    alone = compared(base, data=tiny_data, latency_only=True)
    beside = compared(base, data="", latency_only=True, lstms=[tiny_run])

    assert names(alone) == ["any-base", *BASELINES]
    assert names(beside) == ["tiny", "any-base", *BASELINES]
    # Nothing can be tested against a model that has not answered.
    assert (alone["reference"], beside["reference"]) == (BASELINES[1], "tiny")
    for row in (alone["rows"][0], beside["rows"][1]):
        assert row["note"] == "only timed"
        assert row["parameters"] == load(tiny_bert, "cpu").num_parameters()
        assert (row["scores"], row["confusion_matrix"], row["tests"]) == ({}, None, None)


@pytest.mark.usefixtures("untimed")
def test_a_model_of_other_classes_can_be_timed(
    tiny_bert: Path, tiny_data: Path, tmp_path: Path
) -> None:
    other = copied(
        tiny_bert, tmp_path / "other", id2label={0: "a", 1: "b", 2: "c"}, label2id=None
    )  # fmt: skip

    record = compared(other, tiny_bert, data=tiny_data, latency_only=True)

    assert [row["note"] for row in record["rows"]] == ["only timed", "only timed", "", ""]


def test_what_was_written_to_be_timed_is_gone_in_the_end(
    tiny_bert: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen: list[Path] = []

    def measure(contenders: Sequence[latency.Contender], *_: Any, **__: Any) -> list[Any]:
        seen.extend(it.weights for it in contenders if it.weights)
        assert all((path / "model.safetensors").is_file() for path in seen)
        return []

    monkeypatch.setattr(contest, "measure", measure)
    compared(tiny_bert, data=tiny_data, latency_only=True)

    (folder,) = seen
    assert folder.is_relative_to(tmp_path) and folder != tiny_bert
    assert list(tmp_path.iterdir()) == []


def test_a_timed_model_keeps_its_encoder_and_its_tokenizer(
    tiny_bert: Path, tiny_data: Path, tmp_path: Path
) -> None:
    base = headless(tiny_bert, tmp_path / "any", text_normaliser="cardiff")
    dataset = load_dataset(DataConfig(data=str(tiny_data)))

    entrant = timed_only(str(base), dataset, tmp_path / "timed", "cpu")

    assert not entrant.answers
    assert entrant.classifier.labels == dataset.labels
    before, after = (
        load_file(path / "model.safetensors") for path in (tiny_bert, tmp_path / "timed")
    )
    assert before.keys() == after.keys()
    kept = {name for name in before if torch.equal(before[name], after[name])}
    assert before.keys() - kept == {"classifier.weight"}
    text = "@ann is so happy http://x.org"
    assert (
        entrant.classifier.encode([text])["input_ids"].tolist()
        == load(tiny_bert, "cpu").encode(["@user is so happy http"])["input_ids"].tolist()
    )


def test_what_is_not_in_the_registry_and_cannot_be_had_is_not_timed(
    tiny_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()

    message = refusal(tmp_path / "empty", data=tiny_data, latency_only=True, kind=WeightsError)

    assert str(tmp_path / "empty") in message
    assert "--latency_only" not in refusal(
        tmp_path / "empty", data=tiny_data, kind=WeightsError
    )  # which would not help


def test_a_model_that_cannot_be_had_can_still_be_timed(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))

    message = refusal("bert-base-emotion", data=tiny_data, kind=WeightsError)

    assert "HF_HUB_OFFLINE is set: " in message
    assert message.endswith("; or see its speed alone with --latency_only")


# What is refused


def test_pickled_weights_are_refused(tiny_bert: Path, tiny_data: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_bert, tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()

    for latency_only in (False, True):
        flags = {"latency_only": latency_only, "kind": WeightsError}
        assert "pytorch_model.bin only" in refusal(folder, data=tiny_data, **flags)


def test_code_of_a_model_is_never_run(tiny_bert: Path, tiny_data: Path, tmp_path: Path) -> None:
    code = {"AutoConfig": "evil.Config", "AutoModelForSequenceClassification": "evil.Model"}
    folder = copied(tiny_bert, tmp_path / "evil", model_type="evil", auto_map=code)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\n")

    for latency_only in (False, True):
        flags = {"latency_only": latency_only, "kind": WeightsError}
        assert "never run" in refusal(folder, data=tiny_data, **flags)
    assert not (tmp_path / "imported").exists()


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({"model": []}, "give --model"),
    "no folder": ({"model": ["./not/here/"]}, "./not/here/"),
    "no batch": ({"batch_sizes": "0"}, "--batch_sizes 0"),
    "no data": ({"data": ""}, "--data"),
    "a folder of others": ({"output_path": Path("taken")}, "--output_path"),
    "twice": ({"model": ["bert", "bert"]}, "twice"),
    "two of one name": ({"model": ["bert", "again/bert"]}, "bert"),
}


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize("case", WRONG)
def test_wrong_flags_are_refused(
    tiny_bert: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_bert, "bert")
    shutil.copytree(tiny_bert, "again/bert")
    Path("taken").mkdir()
    Path("taken/thesis.txt").write_text("mine")
    flags, expected = WRONG[case]
    flags = {"model": ["bert"], "data": str(tiny_data), "device": "cpu"} | flags

    with pytest.raises(UsageError) as error:
        versus(VersusConfig(**flags), [])

    assert expected in str(error.value) and "\n" not in str(error.value)
    assert [path.name for path in Path("taken").iterdir()] == ["thesis.txt"]


def test_cuda_without_cuda_is_wrong_use(
    tiny_bert: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert "--device" in refusal(tiny_bert, data=tiny_data, device="cuda")


# The verb


@pytest.fixture
def outputs(tiny_bert: Path, tiny_run: Path, tiny_data: Path, tmp_path: Path) -> Path:
    """A folder of runs, in which that of the LSTM is not the newest."""
    shutil.copytree(tiny_run, tmp_path / "outputs" / "tiny")
    mine = own_run(tiny_bert, tiny_data, tmp_path / "outputs" / "mine")
    newest = (tmp_path / "outputs" / "tiny" / "config.json").stat().st_mtime + 100
    os.utime(mine / "config.json", (newest, newest))
    return tmp_path / "outputs"


@pytest.mark.usefixtures("untimed")
def test_the_newest_lstm_takes_part_with_a_copy_in_half_precision(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", str(outputs / "mine"), "--output_dir", str(outputs)]

    assert main(["test_transformer", *arguments, "--device", "cpu", "--json"]) == 0

    record = json.loads(capsys.readouterr().out)
    assert names(record) == ["tiny", "tiny (fp16)", "mine", *BASELINES]
    sizes = [row["size_bytes"] for row in record["rows"]]
    assert sizes[1] < sizes[0] < sizes[2]


@pytest.mark.usefixtures("untimed")
def test_without_an_lstm_the_transformers_stand_alone(
    tiny_transformers: Mapping[str, Path],
    tiny_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    models = [str(tiny_transformers[family]) for family in ("bert", "albert")]
    arguments = ["--data", str(tiny_data), "--output_dir", str(tmp_path), "--device", "cpu"]

    assert main(["test_transformer", "--model", *models, *arguments]) == 0

    shown = capsys.readouterr().out
    for name in ("tiny-bert", "tiny-albert", *BASELINES, *LABELS):
        assert name in shown


@pytest.mark.parametrize("flag", ["--model", "--weights"])
def test_a_failure_is_one_line(
    tiny_data: Path,
    tiny_bert: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flag: str,
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    arguments = {"--model": str(tiny_bert), "--data": str(tiny_data), "--output_dir": str(tmp_path)}
    words = [word for pair in (arguments | {flag: str(empty)}).items() for word in pair]

    assert main(["test_transformer", *words]) == 2

    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = [line for line in printed.err.splitlines() if line.startswith("featherweight: ")]
    assert str(empty) in line
    assert "Traceback" not in printed.err


def verb(
    command: Sequence[str | Path], folder: Path, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Runs the verb as a process; nothing secret may come out of it."""
    own = environment(folder / "home", OMP_NUM_THREADS="1", **settings)
    done = subprocess.run(
        [sys.executable, *map(str, command), "--device", "cpu"],
        cwd=folder, env=own, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    for secret in (TOKEN, SIGNATURE):
        assert secret not in done.stdout + done.stderr
    return done


def test_the_script_compares_the_newest_lstm_with_a_transformer(outputs: Path) -> None:
    report = outputs.parent / "report"
    flags = ["--batch_sizes", "1", "--json", "--output_path", report]

    done = verb([SCRIPT, "--model", outputs / "mine", *flags], outputs.parent)

    record = json.loads(done.stdout)
    assert names(record) == ["tiny", "tiny (fp16)", "mine", *BASELINES]
    assert record["command"].startswith("test_transformer.py --model")
    for row in record["rows"]:
        assert 0 < row["scores"]["accuracy"] <= 1
        assert [timing["batch_size"] for timing in row["latencies"]] == [1]
    assert record["rows"][2]["ratios"]["size"] > 1
    assert {path.name for path in report.iterdir()} == FILES
    assert json.loads((report / "report.json").read_text(encoding="utf-8")) == record


def test_the_speed_of_a_model_is_measured_where_its_weights_cannot_be_had(
    tiny_run: Path, tmp_path: Path
) -> None:
    flags = ["--latency_only", "--weights", tiny_run, "--batch_sizes", "1", "--json"]

    done = verb(["-c", PROGRAM, "--model", "electra-small", *flags], tmp_path, HF_HUB_OFFLINE="1")

    assert "electra-small is timed with random weights" in done.stderr
    record = json.loads(done.stdout)
    assert names(record) == ["tiny", "tiny (fp16)", "electra-small", *BASELINES]
    row = record["rows"][2]
    assert row["note"] == "only timed, with random weights and a stand-in for its tokenizer"
    assert (row["scores"], row["tests"]) == ({}, None)
    # Source: Clark et al. (2020), ELECTRA, table 1: 14 million.
    assert 13e6 < row["parameters"] < 14e6
    assert row["size_bytes"] > 4 * row["parameters"]
    assert row["latencies"][0]["phases"]["total"]["p50"] > 0
    assert row["ratios"]["speed"]["cpu"]["1"] > 0


# Over HTTP


def test_models_and_data_of_the_hub_make_a_table(tmp_path: Path) -> None:
    rows = {
        split: [
            (f"{part} of {label} {split}", label)
            for label in EMOTIONS
            for part in ("much", "a bit")
        ]
        for split in ("train", "validation", "test")
    }
    data = {
        f"{split}.csv": "\n".join(["text,label", *map(",".join, examples), ""]).encode()
        for split, examples in rows.items()
    }
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
             "intermediate_size": 32, "initializer_range": 0.5, "vocab_size": 200}  # fmt: skip
    tiny = Pretrained("acme/tiny", "bert", sizes)
    build(tiny, [text for text, _ in rows["train"]], EMOTIONS, tmp_path / "named")
    numbers = {index: f"LABEL_{index}" for index in range(len(EMOTIONS))}
    copied(tmp_path / "named", tmp_path / "numbered", id2label=numbers, label2id=None)
    named, numbered = (
        Repository({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
        for name in ("named", "numbered")
    )
    known = REGISTRY["distilbert-emotion"].hub_id
    repositories = {"acme/tiny": named, known: numbered, "acme/moods": Repository(data)}

    with serve(PlayedHub(repositories)) as hub:
        models = ["--model", "acme/tiny", "distilbert-emotion", "--data", "acme/moods"]
        command = ["-c", PROGRAM, *models, "--batch_sizes", "1"]
        done = verb(command, tmp_path, HF_ENDPOINT=hub.endpoint)

    assert {"train.csv", "test.csv", "model.safetensors", "tokenizer.json"} <= hub.files_sent()
    for name in ("tiny", "distilbert-emotion", *BASELINES, *EMOTIONS):
        assert name in done.stdout
    cells = [line.split() for line in done.stdout.splitlines()]
    # The last table has the F1 of each class.
    first, second = ([it[1:] for it in cells if it[:1] == [name]][-1]
                     for name in ("tiny", "distilbert-emotion"))  # fmt: skip
    assert len(first) == len(EMOTIONS) and len(set(first)) > 1
    # The registry knows the names of the classes that its config only numbers.
    assert second == first
