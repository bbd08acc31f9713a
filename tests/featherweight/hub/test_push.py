import csv
import json
import socket
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertForSequenceClassification, pipeline

from featherweight.errors import UsageError, WeightsError
from featherweight.hub.config import PushConfig
from featherweight.hub.push import contents, push
from featherweight.loading import load
from featherweight.run import CHECKPOINT, CHECKPOINTS, CONFIG, MODEL, TRANSFORMER, Run
from tests.helpers.pushes import (
    LABELS,
    LSTM_FILES,
    REPO_ID,
    TEXTS,
    TRANSFORMER_FILES,
    change,
    collected,
    content,
)


@pytest.mark.parametrize(
    ("kind", "expected"), [("run", LSTM_FILES), ("transformer_run", TRANSFORMER_FILES)]
)
def test_a_dry_run_lists_the_files_and_needs_neither_network_nor_token(
    kind: str,
    expected: set[str],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(socket.socket, "connect", None)
    path = request.getfixturevalue(kind)
    shown = push(PushConfig(weights=path, repo_id=REPO_ID, dry_run=True))
    table, _, end = shown.partition("\n\n")
    sizes = dict(line.rsplit(maxsplit=1) for line in table.splitlines()[2:])
    assert sizes.keys() == expected | {"total"}
    files = contents(Run(path), REPO_ID)
    for name in expected:
        assert sizes[name] == f"{len(content(files[name])):,}"
    total = sum(len(content(file)) for file in files.values())
    assert sizes["total"] == f"{total:,}"
    assert end == "ada/moods: nothing was sent"


@pytest.mark.parametrize("kind", ["run", "transformer_run"])
def test_neither_paths_nor_texts_leave_the_machine(
    kind: str, tiny_data: Path, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(kind)
    change(path, CONFIG, output_dir=str(path.parent / "outputs"))
    with (path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    assert len(texts) == 12
    private = [str(tiny_data.parent), str(path.parent), "private-place", *texts]
    for name, pushed_file in contents(Run(path), REPO_ID).items():
        assert [secret for secret in private if secret.encode() in content(pushed_file)] == [], name


def test_only_absolute_paths_are_reduced_to_their_last_part(run: Path) -> None:
    change(run, CONFIG, data=r"C:\Users\ada\moods", output_dir="/home/ada/outputs",
           text_column="text/plain", other="dair-ai/emotion", name="", batch_size=8,
           model=["/home/ada/bert", "bert-base"])  # fmt: skip
    before = json.loads((run / CONFIG).read_text())
    after = json.loads(content(contents(Run(run), REPO_ID)[CONFIG]))
    assert after == before | {
        "data": "moods", "output_dir": "outputs", "model": ["bert", "bert-base"],
    }  # fmt: skip


def test_the_repository_of_a_transformer_works_in_a_pipeline(
    transformer_run: Path, fine_tuned: Path, tmp_path: Path
) -> None:
    folder = collected(transformer_run, tmp_path / "repository")
    classifier = pipeline("text-classification", model=str(folder), device="cpu")
    predictions = classifier(TEXTS, top_k=None)
    tokenizer = AutoTokenizer.from_pretrained(fine_tuned)
    model = BertForSequenceClassification.from_pretrained(fine_tuned).eval()
    with torch.inference_mode():
        logits = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    for prediction, expected in zip(predictions, logits.softmax(dim=1), strict=True):
        actual = {entry["label"]: entry["score"] for entry in prediction}
        assert actual == pytest.approx(dict(zip(LABELS, expected.tolist(), strict=True)), abs=1e-5)
    assert len({prediction[0]["label"] for prediction in predictions}) > 1


def test_the_repository_of_an_lstm_is_loaded_from_its_one_file(run: Path, tmp_path: Path) -> None:
    folder = collected(run, tmp_path / "repository")
    assert load(folder / MODEL, "cpu").predict(TEXTS) == load(run, "cpu").predict(TEXTS)


def test_sharded_weights_are_pushed_with_their_index(transformer_run: Path) -> None:
    folder = transformer_run / TRANSFORMER
    shard = "model-00001-of-00002.safetensors"
    for name in (shard, "model.safetensors.index.json", "vocab.txt", "spiece.model"):
        (folder / name).write_text("{}")
    files = contents(Run(transformer_run), REPO_ID)
    expected = {shard, "model.safetensors.index.json", "vocab.txt", "spiece.model"}
    assert files.keys() == TRANSFORMER_FILES | expected


@pytest.mark.parametrize("name", [CHECKPOINT, CHECKPOINTS])
def test_an_unfinished_run_is_refused(run: Path, name: str) -> None:
    (run / name).mkdir()
    with pytest.raises(UsageError, match="tiny is incomplete: finish it with --resume"):
        contents(Run(run), REPO_ID)


@pytest.mark.parametrize("kind", ["run", "transformer_run"])
def test_a_run_without_weights_is_refused(kind: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(kind)
    folder = run if kind == "run" else run / TRANSFORMER
    (folder / MODEL).unlink()
    with pytest.raises(WeightsError, match=f"{folder.name} has no model.safetensors"):
        contents(Run(run), REPO_ID)


@pytest.mark.parametrize("name", ["README.md", "evaluation.json", "labels.json"])
def test_a_run_without_a_required_file_is_refused(run: Path, name: str) -> None:
    (run / name).unlink()
    with pytest.raises(WeightsError, match=name):
        contents(Run(run), REPO_ID)


@pytest.mark.parametrize(
    ("name", "damaged", "expected"),
    [
        ("README.md", b"\xff\xfe", "no readable README.md"),
        ("evaluation.json", b"{", "evaluation.json is not JSON"),
        ("evaluation.json", b"{}", "evaluation.json is damaged"),
        ("evaluation.json", b"[1]", "evaluation.json is damaged"),
        ("labels.json", b"[", "labels.json is not JSON"),
        ("config.json", b"", "config.json is not JSON"),
        ("config.json", b"[1]", "config.json is not a JSON object"),
    ],
)
def test_a_damaged_file_is_not_pushed(run: Path, name: str, damaged: bytes, expected: str) -> None:
    (run / name).write_bytes(damaged)
    with pytest.raises(WeightsError, match=expected):
        contents(Run(run), REPO_ID)


@pytest.mark.parametrize("place", [".", "tiny/model.safetensors", "gone"])
def test_a_path_that_is_not_a_run_directory_is_refused(run: Path, place: str) -> None:
    with pytest.raises(UsageError, match="is not a run directory"):
        push(PushConfig(weights=run.parent / place, repo_id=REPO_ID, dry_run=True))


def test_the_newest_run_is_pushed_by_default(run: Path) -> None:
    config = PushConfig(repo_id=REPO_ID, dry_run=True, output_dir=run.parent)
    assert "model.safetensors" in push(config)
    (run / MODEL).unlink()
    with pytest.raises(UsageError, match="no finished run"):
        push(config)


@pytest.mark.parametrize(
    "repo_id",
    [
        "", "moods", "ada/", "/moods", "ada/moods/more", "ada/mo ods", "-ada/moods", "ada/.moods",
        "ada/moods-", "ada/mo--ods", "ada/mo..ods", "ada/moods.git", "ada/müde", "ada/moods\n",
        "https://hub/ada/moods", f"ada/{97 * 'x'}",
    ],
)  # fmt: skip
def test_an_invalid_repository_is_refused_first(repo_id: str) -> None:
    with pytest.raises(UsageError, match="give --repo_id owner/name"):
        push(PushConfig(weights=Path("gone"), repo_id=repo_id, dry_run=True))


@settings(max_examples=30)
@given(st.from_regex(r"[aZ0_.-]{1,6}/[aZ0_.-]{1,6}", fullmatch=True))
def test_ids_that_the_library_refuses_are_refused(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        with pytest.raises(UsageError, match="give --repo_id owner/name"):
            push(PushConfig(weights=Path("gone"), repo_id=repo_id, dry_run=True))


@pytest.mark.parametrize("repo_id", [REPO_ID, "Ada-2/m.o_o-ds", "a/b", f"ada/{96 * 'x'}"])
def test_valid_repositories_are_accepted(run: Path, repo_id: str) -> None:
    assert f"{repo_id}: nothing" in push(PushConfig(weights=run, repo_id=repo_id, dry_run=True))
