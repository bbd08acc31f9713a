import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from featherweight import load
from featherweight.data.dataset import DataConfig, load_dataset
from featherweight.errors import UsageError, WeightsError
from featherweight.quality.evaluation import evaluate
from tests.helpers.comparing import (
    BASELINES,
    LABELS,
    NUMBERED,
    Record,
    compared,
    copied,
    finetuned_run,
    names,
    refusal,
)
from transformer_eval import test_transformer
from transformer_eval.config import TransformerTestConfig


def quality(record: Record, model: str) -> Record:
    (row,) = (row for row in record["rows"] if row["model"] == model)
    return {name: row[name] for name in ("scores", "per_class", "confusion_matrix", "intervals")}


# Rows


@pytest.mark.usefixtures("untimed")
def test_transformers_are_compared_with_the_baselines(
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
def test_lstm_is_the_first_row_and_determines_the_data(tiny_bert: Path, tiny_run: Path) -> None:
    record = compared(tiny_bert, data="", lstms=[tiny_run])

    assert names(record) == ["tiny", "tiny-bert", *BASELINES]
    assert record["reference"] == "tiny"
    assert record["data"]["name"] == "moods"
    assert record["rows"][0]["tests"] is None
    assert {"accuracy", "macro_f1"} == set(record["rows"][1]["tests"])


@pytest.mark.usefixtures("untimed")
def test_all_models_are_evaluated_on_the_chosen_split(tiny_bert: Path, tiny_run: Path) -> None:
    config = TransformerTestConfig(model=[str(tiny_bert)], split="train", device="cpu")

    record, evaluations = test_transformer.test_transformer(config, [tiny_run])

    assert (record["data"]["split"], record["data"]["n"]) == ("train", 36)
    assert [each.model for each in evaluations] == ["tiny", "tiny-bert"]
    assert {(each.split, len(each.targets)) for each in evaluations} == {("train", 36)}


@pytest.mark.usefixtures("untimed")
def test_fine_tuned_run_determines_name_and_data(
    tiny_bert: Path, tiny_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    mine = finetuned_run(tiny_bert, tiny_data, tmp_path / "mine")

    assert names(compared(mine, data="")) == ["mine", *BASELINES]
    assert names(compared(mine, data="", lstms=[tiny_run])) == ["tiny", "mine", *BASELINES]


@pytest.mark.usefixtures("untimed")
def test_runs_with_different_data_need_the_data_flag(
    tiny_bert: Path, tiny_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(tiny_data, tmp_path / "other")
    (other / "train.csv").write_text("text,label\nso sad,sadness\nso glad,joy\nso mad,anger\n")
    mine = finetuned_run(tiny_bert, other, tmp_path / "mine")

    assert "different data" in refusal(mine, data="", lstms=[tiny_run])
    assert names(compared(mine, data=tiny_data, lstms=[tiny_run]))[:2] == ["tiny", "mine"]


def test_transformer_is_timed_in_a_process(
    tiny_bert: Path, tiny_data: Path, time_only: Any
) -> None:
    time_only("tiny-bert")
    record = compared(tiny_bert, data=tiny_data, batch_sizes="3")

    (timing,) = record["rows"][0]["latencies"]
    assert (timing["device"], timing["batch_size"], timing["dtype"]) == ("cpu", 3, "fp32")
    assert timing["total_ms"]["p50"] > 0


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
    columns = zip(*quality(together, "other")["confusion_matrix"], strict=True)
    assert sum(map(any, columns)) > 1  # several classes are predicted
    # The first row determines the class ids of the record.
    alone = compared(other, data=tiny_data, split="train")
    assert alone["data"]["labels"] != together["data"]["labels"]
    scores = quality(together, "other")["scores"]
    assert quality(alone, "other")["scores"] == pytest.approx(scores)


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize(
    ("id2label", "model_labels"),
    [
        ({0: "Sadness", 1: "ANGER", 2: "jOy"}, ""),
        (NUMBERED, "sadness,anger,joy"),
        (NUMBERED, " Sadness , Anger,JOY "),
        ({0: "0", 1: "1", 2: "2"}, "sadness,anger,joy"),
        # Names in the config take precedence over the flag.
        ({0: "sadness", 1: "anger", 2: "joy"}, "joy,sadness,anger"),
    ],
)
def test_class_names_are_those_of_the_data(
    tiny_bert: Path, tiny_data: Path, tmp_path: Path, id2label: dict[int, str], model_labels: str
) -> None:
    other = copied(tiny_bert, tmp_path / "other", id2label=id2label, label2id=None)

    record = compared(tiny_bert, other, data=tiny_data, split="train", model_labels=model_labels)

    assert quality(record, "other") == quality(record, "tiny-bert")


@pytest.mark.usefixtures("untimed")
def test_order_of_model_labels_matters(tiny_bert: Path, tiny_data: Path, tmp_path: Path) -> None:
    other = copied(tiny_bert, tmp_path / "other", id2label=NUMBERED, label2id=None)
    flags = {"data": tiny_data, "split": "train"}

    right, wrong = (
        quality(compared(other, model_labels=model_labels, **flags), "other")
        for model_labels in ("sadness,anger,joy", "anger,joy,sadness")
    )

    assert right["scores"] != wrong["scores"]


@pytest.mark.parametrize("model_labels", ["", "sadness,anger", "sadness,anger,joy,fear"])
def test_numbered_classes_without_names_are_refused(
    tiny_bert: Path, tiny_data: Path, tmp_path: Path, model_labels: str
) -> None:
    other = copied(tiny_bert, tmp_path / "other", id2label=NUMBERED, label2id=None)

    message = refusal(other, data=tiny_data, model_labels=model_labels)

    assert message.startswith("other only numbers its 3 classes")
    assert "--model_labels" in message


@pytest.mark.parametrize("model_labels", ["sadness", "sadness,,joy", "joy,joy,sadness"])
def test_invalid_model_labels_are_refused(
    tiny_bert: Path, tiny_data: Path, model_labels: str
) -> None:
    assert f"--model_labels {model_labels}" in refusal(
        tiny_bert, data=tiny_data, model_labels=model_labels
    )


@pytest.mark.parametrize(
    ("id2label", "model_labels"),
    [
        ({0: "sadness", 1: "anger", 2: "love"}, ""),
        (NUMBERED, "sadness,anger,love"),
        ({0: "LABEL_0", 1: "anger", 2: "joy"}, ""),
    ],
)
def test_model_with_different_labels_is_refused(
    tiny_bert: Path, tiny_data: Path, tmp_path: Path, id2label: dict[int, str], model_labels: str
) -> None:
    other = copied(tiny_bert, tmp_path / "other", id2label=id2label, label2id=None)

    message = refusal(other, data=tiny_data, model_labels=model_labels)

    assert "other has the labels" in message and "moods has anger, joy, sadness" in message
    assert "--latency_only" in message


@pytest.mark.parametrize("names", [("joy", "joy"), ("joy", "Joy"), ("joy", "love")])
def test_model_with_more_classes_is_refused(
    tiny_bert: Path, tiny_data: Path, tmp_path: Path, names: tuple[str, str]
) -> None:
    # Two classes of one name are refused like an additional class.
    labels = dict(enumerate(("sadness", "anger", *names)))
    other = shutil.copytree(tiny_bert, tmp_path / "other")
    AutoModelForSequenceClassification.from_pretrained(
        other, num_labels=4, id2label=labels, label2id={}, ignore_mismatched_sizes=True
    ).save_pretrained(other)

    assert "not comparable" in refusal(other, data=tiny_data)


@pytest.mark.usefixtures("untimed")
def test_numbered_labels_of_the_data_are_named_by_the_labels_flag(
    tiny_bert: Path, tiny_data: Path, tmp_path: Path
) -> None:
    data = tmp_path / "moods"
    data.mkdir()
    for path in tiny_data.iterdir():
        text = path.read_text(encoding="utf-8")
        for index, label in enumerate(LABELS):
            text = text.replace(f",{label}\n", f",{index}\n")
        (data / path.name).write_text(text, encoding="utf-8")
    assert ",joy" not in (data / "train.csv").read_text(encoding="utf-8")

    message = refusal(tiny_bert, data=data)
    assert "0, 1, 2" in message and "name the ids of the data with --labels, " in message
    named = compared(tiny_bert, data=data, labels=",".join(LABELS))
    assert quality(named, "tiny-bert") == quality(compared(tiny_bert, data=tiny_data), "tiny-bert")


# What is refused


def test_pickled_weights_are_refused(tiny_bert: Path, tiny_data: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_bert, tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()

    for latency_only in (False, True):
        flags = {"latency_only": latency_only, "kind": WeightsError}
        assert "only as pytorch_model.bin" in refusal(folder, data=tiny_data, **flags)


def test_code_of_a_model_is_not_run(tiny_bert: Path, tiny_data: Path, tmp_path: Path) -> None:
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
    "foreign folder": ({"output_path": Path("taken")}, "--output_path"),
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
        test_transformer.test_transformer(TransformerTestConfig(**flags), [])

    assert expected in str(error.value) and "\n" not in str(error.value)
    assert [path.name for path in Path("taken").iterdir()] == ["thesis.txt"]


def test_device_cuda_without_cuda_is_refused(
    tiny_bert: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert "--device" in refusal(tiny_bert, data=tiny_data, device="cuda")
