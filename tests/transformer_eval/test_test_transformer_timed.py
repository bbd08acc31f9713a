import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from featherweight import load
from featherweight.comparison import compare
from featherweight.data.dataset import DataConfig, load_dataset
from featherweight.errors import WeightsError
from featherweight.timing import latency
from tests.helpers.comparing import BASELINES, NUMBERED, compared, copied, names, refusal
from transformer_eval.test_transformer import timed_only


def headless(origin: Path, folder: Path, **entries: Any) -> Path:
    """Copies a model without its head."""
    shutil.copytree(origin, folder)
    AutoModel.from_pretrained(folder).save_pretrained(folder)
    return copied(folder, folder.with_name(f"{folder.name}-base"), **entries)


def test_model_without_a_head_is_refused(tiny_bert: Path, tiny_data: Path, tmp_path: Path) -> None:
    base = headless(tiny_bert, tmp_path / "base")

    assert "featherweight finetune" in refusal(base, data=tiny_data, kind=WeightsError)


@pytest.mark.usefixtures("untimed")
# Base models have two classes without names, and the data has three.
@pytest.mark.parametrize("id2label", [{0: "LABEL_0", 1: "LABEL_1"}, NUMBERED])
def test_model_without_a_head_is_timed_with_a_new_one(
    tiny_bert: Path, tiny_run: Path, tiny_data: Path, tmp_path: Path, id2label: dict[int, str]
) -> None:
    base = headless(tiny_bert, tmp_path / "any", id2label=id2label, label2id=None)

    alone = compared(base, data=tiny_data, latency_only=True)
    with_lstm = compared(base, data="", latency_only=True, lstms=[tiny_run])

    assert names(alone) == ["any-base", *BASELINES]
    assert names(with_lstm) == ["tiny", "any-base", *BASELINES]
    # A model without predictions cannot be the reference.
    assert (alone["reference"], with_lstm["reference"]) == (BASELINES[1], "tiny")
    for row in (alone["rows"][0], with_lstm["rows"][1]):
        assert row["note"] == "only timed"
        assert row["parameters"] == load(tiny_bert, "cpu").num_parameters()
        assert (row["scores"], row["confusion_matrix"], row["tests"]) == ({}, None, None)


@pytest.mark.usefixtures("untimed")
def test_model_with_different_labels_can_be_timed(
    tiny_bert: Path, tiny_data: Path, tmp_path: Path
) -> None:
    other = copied(
        tiny_bert, tmp_path / "other", id2label={0: "a", 1: "b", 2: "c"}, label2id=None
    )  # fmt: skip

    record = compared(other, tiny_bert, data=tiny_data, latency_only=True)

    assert [row["note"] for row in record["rows"]] == ["only timed", "only timed", "", ""]


def test_temporary_files_of_timed_models_are_deleted(
    tiny_bert: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen: list[Path] = []

    def measure(contenders: Sequence[latency.Contender], *_: Any, **__: Any) -> list[Any]:
        seen.extend(contender.weights for contender in contenders if contender.weights)
        assert all((path / "model.safetensors").is_file() for path in seen)
        return []

    monkeypatch.setattr(compare, "measure", measure)
    compared(tiny_bert, data=tiny_data, latency_only=True)

    (folder,) = seen
    assert folder.is_relative_to(tmp_path) and folder != tiny_bert
    assert list(tmp_path.iterdir()) == []


def test_timed_model_keeps_its_encoder_and_tokenizer(
    tiny_bert: Path, tiny_data: Path, tmp_path: Path
) -> None:
    base = headless(tiny_bert, tmp_path / "any", text_normaliser="cardiff")
    dataset = load_dataset(DataConfig(data=str(tiny_data)))

    entrant = timed_only(str(base), dataset, tmp_path / "timed", "cpu")

    assert entrant.timed_only
    assert entrant.classifier.labels == dataset.labels
    before, after = (
        load_file(path / "model.safetensors") for path in (tiny_bert, tmp_path / "timed")
    )
    assert before.keys() == after.keys()
    equal = {name for name in before if torch.equal(before[name], after[name])}
    assert before.keys() - equal == {"classifier.weight"}
    text = "@ann is so happy http://x.org"
    assert (
        entrant.classifier.encode([text])["input_ids"].tolist()
        == load(tiny_bert, "cpu").encode(["@user is so happy http"])["input_ids"].tolist()
    )


def test_unavailable_model_outside_the_registry_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    message = refusal(tmp_path / "empty", data=tiny_data, latency_only=True, kind=WeightsError)

    assert str(tmp_path / "empty") in message
    # The flag would not help.
    assert "--latency_only" not in refusal(tmp_path / "empty", data=tiny_data, kind=WeightsError)


def test_error_for_an_unavailable_registry_model_suggests_latency_only(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))

    message = refusal("bert-base-emotion", data=tiny_data, kind=WeightsError)

    assert "HF_HUB_OFFLINE is set, and " in message
    assert message.endswith("; or measure only its speed with --latency_only")
