"""What leaves the machine with `push`: over real HTTP, to a small server in place of the Hub.

The libraries read their environment at import, so each push is a process of its own.
"""

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    pipeline,
)

from featherweight.config import PushConfig
from featherweight.errors import UsageError, WeightsError
from featherweight.loading import load
from featherweight.pushing import contents, push
from featherweight.run import CHECKPOINT, CHECKPOINTS, CONFIG, MODEL, TRANSFORMER, Run
from tests.upload_server import played_hub

TOKEN = "hf_thisIsASecretThatNoMessageMayHold"
REPO_ID = "ada/moods"
TEXTS = ["i am so happy today", "nobody came and i cried", "stop it , i hate this queue"]
LABELS = ("anger", "joy", "sadness")
LSTM_FILES = {
    "README.md", "config.json", "confusion_matrix.png", "evaluation.json", "labels.json",
    "model.safetensors", "training_curves.png",
}  # fmt: skip
TRANSFORMER_FILES = {
    "README.md", "config.json", "confusion_matrix.png", "evaluation.json", "model.safetensors",
    "tokenizer.json", "tokenizer_config.json", "training_curves.png",
}  # fmt: skip

PROGRAM = """
import json, sys
from pathlib import Path
from featherweight import pushing
from featherweight.config import PushConfig
from featherweight.errors import FeatherweightError
settings = json.loads(sys.argv[1])
# Short only where no answer is to come: a busy machine may need its time for the others.
pushing.ANSWER_S = settings.pop("answer_s", pushing.ANSWER_S)
pushing.METADATA_S = settings.pop("metadata_s", pushing.METADATA_S)
settings["weights"] = Path(settings["weights"])
try:
    print(pushing.push(PushConfig(**settings)))
except FeatherweightError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A finished run of the LSTM, free to be changed."""
    return shutil.copytree(tiny_run, tmp_path / "private-place" / "tiny")


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny BERT with random weights."""
    folder = tmp_path_factory.mktemp("bert") / TRANSFORMER
    words = ["[PAD]", "[UNK]", *sorted({word for text in TEXTS for word in text.split()})]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=32
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=32, initializer_range=1.0,
        id2label=dict(enumerate(LABELS)), label2id={name: i for i, name in enumerate(LABELS)},
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture
def transformer_run(run: Path, fine_tuned: Path) -> Path:
    """A finished run of a transformer, with what a training may leave lying about."""
    (run / MODEL).unlink()
    (run / "tokenizer.json").unlink()
    folder = shutil.copytree(fine_tuned, run / TRANSFORMER)
    for name, entry in ((CONFIG, "_name_or_path"), ("tokenizer_config.json", "name_or_path")):
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(values | {entry: str(run / "base-model")}))
    for name in ("training_args.bin", "trainer_state.json", "modeling_bert.py", "optimizer.pt"):
        (folder / name).write_text("private")
    (folder / "checkpoint-3").mkdir()
    shutil.copy(folder / MODEL, folder / "checkpoint-3")
    return run


@pytest.fixture
def hub() -> Iterator[Any]:
    with played_hub(TOKEN) as hub:
        yield hub


def started(place: Path, endpoint: str, environment: dict[str, str], **flags: Any) -> Any:
    """Starts a push as a process."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(("HF_", "HUGGING", "HTTP", "ALL_PROXY"))
    }
    own = {"HF_HOME": str(place / "home"), "HF_ENDPOINT": endpoint, "NO_PROXY": "*"}
    # Xet has a server and a protocol of its own, which is not played here.
    own |= {"HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    arguments = {"repo_id": REPO_ID} | flags
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps(arguments, default=str)],
        env=inherited | own | environment,
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def pushed(
    place: Path, endpoint: str, environment: dict[str, str] | None = None, **flags: Any
) -> tuple[int, str, str]:
    """Returns exit code, stdout and stderr of a push, which hold no secret."""
    process = started(place, endpoint, environment or {}, **flags)
    stdout, stderr = process.communicate(timeout=120)
    assert "Traceback" not in stderr
    assert TOKEN not in stdout + stderr
    assert "signature=" not in stdout + stderr
    return process.returncode, stdout, stderr


def content(file: Path | bytes) -> bytes:
    return file if isinstance(file, bytes) else file.read_bytes()


def collected(run: Path, folder: Path) -> Path:
    """Writes what would be in the repository into a folder."""
    folder.mkdir()
    for name, file in contents(Run(run), REPO_ID).items():
        (folder / name).write_bytes(content(file))
    return folder


def card(run: Path, license: str = "") -> tuple[dict[str, Any], str]:
    """Returns metadata and text of the card that would be pushed."""
    text = content(contents(Run(run), REPO_ID, license)["README.md"]).decode()
    read = ModelCard(text)
    return read.data.to_dict(), read.text


def change(run: Path, file: str, /, **values: Any) -> None:
    (run / file).write_text(json.dumps(json.loads((run / file).read_text()) | values))


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


def test_a_path_is_reduced_to_its_last_part_and_all_else_stays(run: Path) -> None:
    change(run, CONFIG, data=r"C:\Users\ada\moods", output_dir="/home/ada/outputs",
           text_column="text/plain", other="dair-ai/emotion", name="", batch_size=8)  # fmt: skip
    before = json.loads((run / CONFIG).read_text())
    after = json.loads(content(contents(Run(run), REPO_ID)[CONFIG]))
    assert after == before | {"data": "moods", "output_dir": "outputs"}


def test_the_repository_of_a_transformer_works_in_a_pipeline(
    transformer_run: Path, fine_tuned: Path, tmp_path: Path
) -> None:
    folder = collected(transformer_run, tmp_path / "repository")
    answers = pipeline("text-classification", model=str(folder), device="cpu")(TEXTS, top_k=None)
    tokenizer = AutoTokenizer.from_pretrained(fine_tuned)
    model = BertForSequenceClassification.from_pretrained(fine_tuned).eval()
    with torch.inference_mode():
        logits = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    for answer, expected in zip(answers, logits.softmax(dim=1), strict=True):
        found = {it["label"]: it["score"] for it in answer}
        assert found == pytest.approx(dict(zip(LABELS, expected.tolist(), strict=True)), abs=1e-5)
    assert len({answer[0]["label"] for answer in answers}) > 1


def test_the_repository_of_an_lstm_is_loaded_from_its_one_file(run: Path, tmp_path: Path) -> None:
    folder = collected(run, tmp_path / "repository")
    assert load(folder / MODEL, "cpu").predict(TEXTS) == load(run, "cpu").predict(TEXTS)


def test_sharded_weights_go_up_with_their_index(transformer_run: Path) -> None:
    folder = transformer_run / TRANSFORMER
    shard = "model-00001-of-00002.safetensors"
    for name in (shard, "model.safetensors.index.json", "vocab.txt", "spiece.model"):
        (folder / name).write_text("{}")
    files = contents(Run(transformer_run), REPO_ID)
    expected = {shard, "model.safetensors.index.json", "vocab.txt", "spiece.model"}
    assert files.keys() == TRANSFORMER_FILES | expected


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_card_states_the_figures_and_the_split_they_stand_for(run: Path, split: str) -> None:
    change(run, "evaluation.json", split=split)
    figures = json.loads((run / "evaluation.json").read_text())
    metadata, text = card(run)
    (entry,) = metadata["model-index"]
    (result,) = entry["results"]
    assert result["dataset"] == {
        "name": "moods", "type": "moods", "split": split, "args": {"n": 12},
    }  # fmt: skip
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert values == {"accuracy": figures["accuracy"], "f1": figures["macro_f1"]}
    assert {metric["name"] for metric in result["metrics"]} == {
        f"Accuracy ({split}, n = 12)",
        f"Macro F1 ({split}, n = 12)",
    }
    assert metadata["pipeline_tag"] == "text-classification"
    assert metadata["tags"] == ["featherweight", "lstm"]
    assert "license" not in metadata
    assert "## Quality" in text


def test_the_card_of_a_transformer_names_the_library_that_loads_it(transformer_run: Path) -> None:
    metadata, text = card(transformer_run, license="apache-2.0")
    assert metadata["library_name"] == "transformers"
    assert metadata["license"] == "apache-2.0"
    assert f'pipeline("text-classification", model="{REPO_ID}")' in text
    assert "NORMALISERS" not in text


def test_the_card_of_a_transformer_says_how_to_normalise(transformer_run: Path) -> None:
    change(transformer_run / TRANSFORMER, CONFIG, text_normaliser="cardiff")
    assert 'NORMALISERS["cardiff"]("i feel' in card(transformer_run)[1]


@pytest.mark.parametrize("kind", ["run", "transformer_run"])
def test_the_card_holds_one_program_that_loads_from_the_hub(
    kind: str, request: pytest.FixtureRequest
) -> None:
    _, text = card(request.getfixturevalue(kind))
    assert text.count("```python") == 1
    program = text.partition("```python\n")[2].partition("```")[0]
    assert REPO_ID in program
    compile(program, "card", "exec")
    if kind == "run":
        assert f'load(hf_hub_download("{REPO_ID}", "model.safetensors"))' in program


def test_a_card_without_a_section_on_use_gets_one(run: Path) -> None:
    (run / "README.md").write_text("# tiny\n\nWritten by hand.\n")
    _, text = card(run)
    assert "Written by hand.\n\n## Use\n\n```python\n" in text


def test_the_card_points_to_no_file_that_stays_behind(run: Path) -> None:
    assert "](training_curves.png)" in card(run)[1]
    (run / "training_curves.png").unlink()  # as in a compressed variant
    assert "training_curves.png" not in contents(Run(run), REPO_ID)
    _, text = card(run)
    assert "training_curves.png" not in text
    assert "data.json" not in text
    assert "](confusion_matrix.png)" in text


@pytest.mark.parametrize("name", [CHECKPOINT, CHECKPOINTS])
def test_an_unfinished_run_is_refused(run: Path, name: str) -> None:
    (run / name).mkdir()
    with pytest.raises(UsageError, match="tiny was cut off in training: finish it with --resume"):
        contents(Run(run), REPO_ID)


@pytest.mark.parametrize("kind", ["run", "transformer_run"])
def test_a_run_without_weights_is_refused(kind: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(kind)
    folder = run if kind == "run" else run / TRANSFORMER
    (folder / MODEL).unlink()
    with pytest.raises(WeightsError, match=f"{folder.name} has no model.safetensors"):
        contents(Run(run), REPO_ID)


@pytest.mark.parametrize("name", ["README.md", "evaluation.json", "labels.json"])
def test_a_run_without_a_file_that_readers_need_is_refused(run: Path, name: str) -> None:
    (run / name).unlink()
    with pytest.raises(WeightsError, match=name):
        contents(Run(run), REPO_ID)


@pytest.mark.parametrize(
    ("name", "damaged", "expected"),
    [
        ("README.md", b"\xff\xfe", "no readable README.md"),
        ("evaluation.json", b"{", "evaluation.json is not JSON"),
        ("evaluation.json", b"{}", "evaluation.json is not that of a run"),
        ("evaluation.json", b"[1]", "evaluation.json is not that of a run"),
        ("labels.json", b"[", "labels.json is not JSON"),
        ("config.json", b"", "config.json is not JSON"),
        ("config.json", b"[1]", "config.json is no JSON object"),
    ],
)
def test_a_damaged_file_is_not_pushed(run: Path, name: str, damaged: bytes, expected: str) -> None:
    (run / name).write_bytes(damaged)
    with pytest.raises(WeightsError, match=expected):
        contents(Run(run), REPO_ID)


@pytest.mark.parametrize("place", [".", "tiny/model.safetensors", "gone"])
def test_what_is_no_run_directory_is_refused(run: Path, place: str) -> None:
    with pytest.raises(UsageError, match="is not a run directory"):
        push(PushConfig(weights=run.parent / place, repo_id=REPO_ID, dry_run=True))


def test_without_weights_the_newest_run_is_taken(run: Path) -> None:
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
def test_what_is_no_repository_is_refused_before_anything_else(repo_id: str) -> None:
    with pytest.raises(UsageError, match="give --repo_id owner/name"):
        push(PushConfig(weights=Path("gone"), repo_id=repo_id, dry_run=True))


@settings(deadline=None)
@given(st.from_regex(r"[aZ0_.-]{1,6}/[aZ0_.-]{1,6}", fullmatch=True))
def test_what_the_library_refuses_is_refused(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        with pytest.raises(UsageError, match="give --repo_id owner/name"):
            push(PushConfig(weights=Path("gone"), repo_id=repo_id, dry_run=True))


@pytest.mark.parametrize("repo_id", [REPO_ID, "Ada-2/m.o_o-ds", "a/b", f"ada/{96 * 'x'}"])
def test_usual_names_are_taken(run: Path, repo_id: str) -> None:
    assert f"{repo_id}: nothing" in push(PushConfig(weights=run, repo_id=repo_id, dry_run=True))


def test_a_push_is_one_commit_with_what_the_dry_run_lists(run: Path, hub: Any) -> None:
    code, stdout, stderr = pushed(run.parent, hub.endpoint, weights=run)
    assert (code, stderr) == (0, "")
    assert stdout.endswith("pushed to ada/moods, commit beefbeef\n")
    (files,) = hub.commits
    assert files == {name: content(it) for name, it in contents(Run(run), REPO_ID).items()}
    listed = push(PushConfig(weights=run, repo_id=REPO_ID, dry_run=True))
    assert stdout.partition("\n\n")[0] == listed.partition("\n\n")[0]
    assert hub.private == {REPO_ID: False}


def test_a_transformer_is_pushed_to_the_root_of_its_repository(
    transformer_run: Path, hub: Any
) -> None:
    code, _, stderr = pushed(transformer_run.parent, hub.endpoint, weights=transformer_run)
    assert (code, stderr) == (0, "")
    (files,) = hub.commits
    assert files.keys() == TRANSFORMER_FILES
    assert files[MODEL] == (transformer_run / TRANSFORMER / MODEL).read_bytes()


def test_a_saved_login_is_used(run: Path, hub: Any) -> None:
    home = run.parent / "home"
    home.mkdir()
    (home / "token").write_text(TOKEN)
    assert pushed(run.parent, hub.endpoint, {"HF_TOKEN": ""}, weights=run)[0] == 0
    assert len(hub.commits) == 1


def test_a_run_may_be_pushed_again(run: Path, hub: Any) -> None:
    assert pushed(run.parent, hub.endpoint, weights=run)[0] == 0
    change(run, "evaluation.json", split="test")
    assert pushed(run.parent, hub.endpoint, weights=run)[0] == 0
    first, second = hub.commits
    assert first["evaluation.json"] != second["evaluation.json"]


def test_a_new_repository_is_private_where_that_is_asked(run: Path, hub: Any) -> None:
    for _ in range(2):
        assert pushed(run.parent, hub.endpoint, weights=run, private=True)[0] == 0
    assert hub.private == {REPO_ID: True}
    assert len(hub.commits) == 2


def test_nothing_private_goes_into_a_repository_that_is_public(run: Path, hub: Any) -> None:
    hub.private[REPO_ID] = False
    code, stdout, stderr = pushed(run.parent, hub.endpoint, weights=run, private=True)
    assert (code, stdout) == (2, "")
    assert stderr.startswith("ada/moods is there already and public: make it private")
    assert hub.commits == []


@pytest.mark.parametrize(
    ("request_", "status", "flags", "code", "expected"),
    [
        ("whoami", 401, {}, 2, "the Hub does not accept your token: log in anew with: hf auth"),
        ("whoami", 403, {}, 2, "the Hub does not accept your token"),
        ("whoami", 503, {}, 1, "127.0.0.1 cannot be reached (it answers 503): nothing was sent"),
        ("repos/create", 401, {}, 2, "your token may not write to ada/moods: name a repository"),
        ("repos/create", 403, {}, 2, "your token may not write to ada/moods"),
        ("repos/create", 500, {}, 1, "the push to ada/moods failed (the Hub answers 500)"),
        ("preupload", 403, {}, 2, "your token may not write to ada/moods"),
        ("validate-yaml", 400, {"license": "mine"}, 2, "does it know a --license mine?"),
        ("validate-yaml", 400, {}, 1, "the push to ada/moods failed (the Hub answers 400)"),
        ("PUT /blobs", 400, {}, 1, "the push to ada/moods failed (the Hub answers 400)"),
        ("/commit/main", 403, {}, 2, "your token may not write to ada/moods"),
        ("/commit/main", 500, {}, 1, "the push to ada/moods failed (the Hub answers 500); it"),
    ],
)  # fmt: skip
def test_a_hub_that_refuses_gets_no_commit_and_one_line_says_why(
    run: Path, hub: Any, request_: str, status: int, flags: dict[str, str], code: int,
    expected: str,
) -> None:  # fmt: skip
    hub.statuses = {request_: status}
    answer = pushed(run.parent, hub.endpoint, weights=run, **flags)
    assert answer[:2] == (code, "")
    assert expected in answer[2]
    assert answer[2].count("\n") == 1
    assert hub.commits == []


def test_a_wrong_token_is_found_before_anything_is_made(run: Path, hub: Any) -> None:
    code, _, stderr = pushed(run.parent, hub.endpoint, {"HF_TOKEN": "hf_wrong"}, weights=run)
    assert code == 2
    assert "does not accept your token" in stderr
    assert "hf_wrong" not in stderr
    assert "GET /api/whoami-v2" in hub.requests
    assert not any(request.startswith("POST") for request in hub.requests)


@pytest.mark.parametrize("token", [f"{TOKEN}\tx", f"{TOKEN}ü"])
def test_a_token_that_no_request_can_carry_is_not_repeated(run: Path, hub: Any, token: str) -> None:
    code, _, stderr = pushed(run.parent, hub.endpoint, {"HF_TOKEN": token}, weights=run)
    assert code != 0
    assert stderr.count("\n") == 1
    assert hub.commits == []


def test_a_hiccup_of_the_store_is_overcome_in_silence(run: Path, hub: Any) -> None:
    hub.statuses, hub.recovers = {"PUT /blobs": 500}, True
    code, _, stderr = pushed(run.parent, hub.endpoint, weights=run)
    assert (code, stderr) == (0, "")
    assert len(hub.commits) == 1


def test_a_push_that_is_killed_in_the_middle_changes_nothing(run: Path, hub: Any) -> None:
    hub.stalls = "PUT /blobs"
    process = started(run.parent, hub.endpoint, {}, weights=run)
    assert hub.stalled.wait(60)
    process.kill()
    process.communicate()
    assert hub.commits == []
    hub.stalls = ""
    assert pushed(run.parent, hub.endpoint, weights=run)[0] == 0
    (files,) = hub.commits
    assert files.keys() == LSTM_FILES


def test_without_a_login_it_says_how(run: Path, hub: Any) -> None:
    code, stdout, stderr = pushed(run.parent, hub.endpoint, {"HF_TOKEN": ""}, weights=run)
    assert (code, stdout) == (2, "")
    assert stderr == "nobody is logged in to the Hub: log in with: hf auth login\n"
    assert hub.requests == []


def test_offline_nothing_is_pushed(run: Path, hub: Any) -> None:
    code, _, stderr = pushed(run.parent, hub.endpoint, {"HF_HUB_OFFLINE": "1"}, weights=run)
    assert code == 2
    assert stderr == "HF_HUB_OFFLINE is set: unset it to push, or see --dry_run\n"
    assert hub.requests == []


def test_an_unreachable_hub_is_one_line(run: Path) -> None:
    # Nothing listens on port 1; the password is there to see that no message repeats it.
    code, _, stderr = pushed(run.parent, "http://user:pass-word@127.0.0.1:1", weights=run)
    assert code == 1
    assert stderr.startswith("127.0.0.1 cannot be reached (ConnectError): nothing was sent")
    assert stderr.count("\n") == 1
    assert "pass-word" not in stderr


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ("whoami", "127.0.0.1 does not answer within 1 s: nothing was sent, try again later\n"),
        ("repos/create", "the push to ada/moods failed (the Hub stalls for 2 s)"),
    ],
)
def test_a_silent_hub_is_not_waited_for(run: Path, hub: Any, request_: str, expected: str) -> None:
    hub.stalls = request_
    answer_s = 1.0 if request_ == "whoami" else 8.0
    code, _, stderr = pushed(
        run.parent, hub.endpoint, weights=run, answer_s=answer_s, metadata_s=2.0
    )
    assert code == 1
    assert stderr.startswith(expected)
    assert stderr.count("\n") == 1
    assert hub.commits == []
