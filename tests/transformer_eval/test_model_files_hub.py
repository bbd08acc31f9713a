import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from featherweight.hub import client
from tests.helpers.fetching import FETCH, Model, assert_fails, fetched
from tests.helpers.hub_server import (
    COMMIT,
    TOKEN,
    PlayedHub,
    Repository,
    environment,
    run,
    wait_until,
)
from transformer_eval.model_files import CONVERSION, CONVERTER, INDEX
from transformer_eval.registry import REGISTRY

NEXT = "ca11ab1e" * 5
OTHER = "0badf00d" * 5
CLOSED = "http://user:pass-word@127.0.0.1:1"  # nothing listens on port 1
DISTILBERT = REGISTRY["distilbert"]


def pickled(mini: Model) -> Model:
    return {name: content for name, content in mini.items() if name != "model.safetensors"} | {
        "pytorch_model.bin": b"pickled",
        "training_args.bin": b"pickled",
    }


# The Hub


def test_a_model_of_the_hub_is_downloaded_and_works(
    played: PlayedHub, tmp_path: Path, mini: Model
) -> None:
    extra = {"pytorch_model.bin", "tf_model.h5", "model.onnx", "modeling_x.py", "README.md", "a.pt"}
    extra |= {"onnx/tokenizer.json", "rust_model.ot", "training_args.bin"}
    played.repositories["acme/mini"] = Repository(mini | dict.fromkeys(extra, b"no business"))
    outcome, log = fetched("acme/mini", tmp_path, HF_ENDPOINT=played.endpoint)
    assert (outcome["name"], outcome["revision"], outcome["known"]) == ("mini", COMMIT, False)
    assert set(outcome["files"]) == set(mini)
    assert played.files_sent() == set(mini)
    assert log == ""
    folder = Path(outcome["folder"])
    model = AutoModelForSequenceClassification.from_pretrained(folder, use_safetensors=True)
    batch = AutoTokenizer.from_pretrained(folder)(["good bad"], return_tensors="pt")
    assert model(**batch).logits.shape == (1, 2)


def test_a_login_is_for_the_hub_alone(played: PlayedHub, tmp_path: Path) -> None:
    fetched("acme/mini", tmp_path, HF_ENDPOINT=played.endpoint)
    seen = {(r.path.startswith("/signed/"), r.authorization) for r in played.requests}
    assert seen == {(False, f"Bearer {TOKEN}"), (True, None)}


def test_nothing_is_downloaded_twice(played: PlayedHub, tmp_path: Path) -> None:
    fetched("acme/mini", tmp_path, HF_ENDPOINT=played.endpoint)
    played.requests.clear()
    outcome, _ = fetched("acme/mini", tmp_path, HF_ENDPOINT=played.endpoint)
    assert outcome["revision"] == COMMIT
    assert [request.path for request in played.requests] == ["/api/models/acme/mini"]


def test_a_branch_that_moved_is_followed(played: PlayedHub, tmp_path: Path, mini: Model) -> None:
    fetched("acme/mini", tmp_path, HF_ENDPOINT=played.endpoint)
    played.repositories["acme/mini"].push(NEXT, mini | {"model.safetensors": b"better"})
    outcome, _ = fetched("acme/mini", tmp_path, HF_ENDPOINT=played.endpoint)
    assert outcome["revision"] == NEXT
    assert (Path(outcome["folder"]) / "model.safetensors").read_bytes() == b"better"
    offline, _ = fetched("acme/mini", tmp_path, HF_HUB_OFFLINE="1")
    assert offline["folder"] == outcome["folder"]


def test_a_registry_name_is_held_to_its_commit(
    played: PlayedHub, tmp_path: Path, mini: Model
) -> None:
    assert DISTILBERT.revision
    repository = Repository(mini, DISTILBERT.revision)
    repository.push(NEXT, mini | {"model.safetensors": b"newer"})
    played.repositories[DISTILBERT.hub_id] = repository
    outcome, _ = fetched("distilbert", tmp_path, HF_ENDPOINT=played.endpoint)
    assert (outcome["name"], outcome["known"]) == ("distilbert", True)
    assert outcome["revision"] == DISTILBERT.revision
    offline, log = fetched("distilbert", tmp_path, HF_HUB_OFFLINE="1")
    assert offline["folder"] == outcome["folder"]
    assert f"HF_HUB_OFFLINE is set: {DISTILBERT.hub_id} is read from the cache" in log


def test_a_commit_that_is_gone_is_told_from_a_repository_that_is_gone(
    played: PlayedHub, tmp_path: Path, mini: Model
) -> None:
    played.repositories[DISTILBERT.hub_id] = Repository(mini, NEXT)
    outcome, _ = fetched("distilbert", tmp_path, HF_ENDPOINT=played.endpoint)
    assert_fails(outcome, "but no longer its pinned commit")


def test_sharded_weights_come_whole(played: PlayedHub, tmp_path: Path, mini: Model) -> None:
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = json.dumps({"weight_map": dict(zip("ab", shards, strict=True))}).encode()
    files = {name: content for name, content in mini.items() if name != "model.safetensors"}
    files |= {INDEX: index, shards[0]: b"one", shards[1]: b"two"}
    played.repositories["acme/mini"] = Repository(files)
    outcome, _ = fetched("acme/mini", tmp_path, HF_ENDPOINT=played.endpoint)
    assert {INDEX, *shards} < set(outcome["files"])

    del files[shards[1]]
    played.repositories["acme/mini"] = Repository(files, NEXT)
    outcome, _ = fetched("acme/mini", tmp_path, HF_ENDPOINT=played.endpoint)
    assert_fails(outcome, f"lacks {shards[1]} on the Hub")


def test_models_that_cannot_be_had(played: PlayedHub, tmp_path: Path, mini: Model) -> None:
    played.statuses |= {"acme/private": 401, "acme/forbidden": 403, "acme/busy": 503}
    played.silent.add("acme/silent")
    played.gated.add("acme/gated")
    no_config = {name: content for name, content in mini.items() if name != "config.json"}
    played.repositories |= {
        "acme/gated": Repository(mini),
        "acme/no-config": Repository(no_config),
        "acme/empty": Repository({}),
        "acme/no-weights": Repository({"config.json": b"{}", "tf_model.h5": b""}),
    }
    expected = {
        "acme/gone": "acme/gone is neither a registry name or local folder nor a model on the Hub",
        "distilbrt": "distilbrt is neither a registry name or local folder nor a model on the Hub",
        "acme/not--valid": "nor a model on the Hub: check the spelling",
        "acme/private": "log in with: hf auth login",
        "acme/forbidden": "log in with: hf auth login",
        "acme/gated": "log in with: hf auth login",
        "acme/busy": "127.0.0.1 cannot be reached (HTTP 503), and acme/busy is not in",
        "acme/silent": "127.0.0.1 did not respond within 1 s, and acme/silent is not",
        "acme/no-config": "acme/no-config has no config.json on the Hub",
        "acme/empty": "acme/empty has no config.json on the Hub",
        "acme/no-weights": "acme/no-weights on the Hub has no model.safetensors",
    }
    outcomes, log = run(FETCH, tmp_path, *expected, HF_ENDPOINT=played.endpoint)
    for name, message in expected.items():
        assert_fails(outcomes[name], message)
    assert log == ""
    # Nothing else would have ended the waiting; who waits has waited for imports before.
    assert client.ANSWER_S <= 4


# Without the Hub


def test_an_unreachable_hub_is_replaced_by_the_cache(played: PlayedHub, tmp_path: Path) -> None:
    online, _ = fetched("acme/mini", tmp_path, HF_ENDPOINT=played.endpoint)
    outcome, log = fetched("acme/mini", tmp_path, HF_ENDPOINT=CLOSED)
    assert outcome["folder"] == online["folder"]
    assert log.startswith("127.0.0.1 cannot be reached (")
    assert log.endswith("): acme/mini is read from the cache\n")
    assert log.count("\n") == 1


def test_an_unreachable_hub_is_one_line(tmp_path: Path) -> None:
    outcome, log = fetched("acme/mini", tmp_path, HF_ENDPOINT=CLOSED)
    assert_fails(outcome, "is not in the cache and is not a registry name or local folder: ")
    for instead in ("give --model a local folder", "the cache"):
        assert instead in outcome["message"]
    assert "minilm" not in outcome["message"]
    assert log == ""


def test_a_registry_name_is_not_said_to_be_none(tmp_path: Path, played: PlayedHub) -> None:
    outcome, _ = fetched("distilbert", tmp_path, HF_ENDPOINT=CLOSED)
    assert_fails(outcome, f"and {DISTILBERT.hub_id} is not in the cache: ")
    outcome, _ = fetched("distilbert", tmp_path, HF_ENDPOINT=played.endpoint)
    assert_fails(outcome, f"the Hub no longer has the model {DISTILBERT.hub_id}: ")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_cache_that_is_not_complete_counts_as_empty(
    played: PlayedHub, tmp_path: Path, name: str
) -> None:
    online, _ = fetched("acme/mini", tmp_path, HF_ENDPOINT=played.endpoint)
    (Path(online["folder"]) / name).resolve().unlink()  # the link in the folder dangles
    outcome, _ = fetched("acme/mini", tmp_path, HF_HUB_OFFLINE="1")
    assert_fails(outcome, "HF_HUB_OFFLINE is set, and acme/mini is not in the cache")


def test_what_another_program_has_cached_is_used(
    played: PlayedHub, tmp_path: Path, mini: Model
) -> None:
    program = """
import huggingface_hub, json
print(json.dumps(huggingface_hub.snapshot_download("acme/mini")))
"""
    folder, _ = run(program, tmp_path, HF_ENDPOINT=played.endpoint, HF_HUB_DISABLE_XET="1")
    outcome, _ = fetched("acme/mini", tmp_path, HF_HUB_OFFLINE="1")
    assert outcome["folder"] == folder


# A download that is cut off


@pytest.fixture
def large(mini: Model, played: PlayedHub) -> Model:
    """Weights of 24 MiB: the library writes 10 at once."""
    files = mini | {"model.safetensors": os.urandom(24 << 20)}
    played.repositories["acme/large"] = Repository(files)
    played.cuts["model.safetensors"] = 23 << 20
    return files


def parts(cache: Path) -> list[int]:
    """Returns the bytes of each download that is not at its end."""
    return [path.stat().st_size for path in cache.rglob("*.incomplete")]


def assert_goes_on(cache: Path, played: PlayedHub, large: Model) -> None:
    played.cuts.clear()
    played.requests.clear()
    outcome, _ = fetched("acme/large", cache, HF_ENDPOINT=played.endpoint)
    content = (Path(outcome["folder"]) / "model.safetensors").read_bytes()
    assert sha256(content).digest() == sha256(large["model.safetensors"]).digest()
    ranges = {r.range for r in played.requests if r.path.startswith("/signed/")}
    assert ranges == {f"bytes={20 << 20}-"}
    assert not parts(cache)


def test_a_download_that_fails_goes_on_with_the_next_call(
    played: PlayedHub, tmp_path: Path, large: Model
) -> None:
    outcome, log = fetched("acme/large", tmp_path, HF_ENDPOINT=played.endpoint)
    assert_fails(outcome, "acme/large cannot be loaded from the Hub (HTTP 500): try again")
    assert log == ""
    assert parts(tmp_path) == [20 << 20]
    assert_goes_on(tmp_path, played, large)


def test_a_download_that_was_killed_goes_on_with_the_next_call(
    played: PlayedHub, tmp_path: Path, large: Model
) -> None:
    played.after_cut = "wait"
    process = subprocess.Popen(
        [sys.executable, "-c", FETCH, "acme/large"],
        env=environment(tmp_path, HF_ENDPOINT=played.endpoint),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: parts(tmp_path) == [20 << 20])
    finally:
        process.kill()
        process.wait()
    offline, _ = fetched("acme/large", tmp_path, HF_HUB_OFFLINE="1")
    assert_fails(offline, "is not in the cache")
    assert_goes_on(tmp_path, played, large)


def test_a_damaged_part_is_found_out_and_fetched_anew(
    played: PlayedHub, tmp_path: Path, large: Model
) -> None:
    fetched("acme/large", tmp_path, HF_ENDPOINT=played.endpoint)
    (part,) = tmp_path.rglob("*.incomplete")
    part.write_bytes(b"x" * (20 << 20))
    played.cuts.clear()
    outcome, _ = fetched("acme/large", tmp_path, HF_ENDPOINT=played.endpoint)
    assert_fails(outcome, "(OSError: model.safetensors was damaged in transit): try again")
    outcome, _ = fetched("acme/large", tmp_path, HF_ENDPOINT=played.endpoint)
    assert "model.safetensors" in outcome["files"]


# Pickled weights, and the Hub's own conversion of them


def test_pickled_weights_on_the_hub_are_refused(
    played: PlayedHub, tmp_path: Path, mini: Model
) -> None:
    played.repositories["acme/old"] = Repository(pickled(mini))
    outcome, _ = fetched("acme/old", tmp_path, HF_ENDPOINT=played.endpoint)
    assert_fails(outcome, "acme/old on the Hub has its weights as pytorch_model.bin only: pickled")
    assert "can run code when they are loaded" in outcome["message"]
    assert not played.files_sent()


def test_the_conversion_by_the_hub_is_taken(played: PlayedHub, tmp_path: Path, mini: Model) -> None:
    repository = Repository(pickled(mini))
    evil = {"model.safetensors": b"evil"}
    repository.propose(OTHER, pickled(mini) | evil, "somebody", CONVERSION)
    repository.propose(NEXT, pickled(mini) | mini, CONVERTER, CONVERSION)
    played.repositories["acme/old"] = repository
    outcome, _ = fetched("acme/old", tmp_path, HF_ENDPOINT=played.endpoint)
    assert (outcome["name"], outcome["revision"]) == ("old", NEXT)
    weights = (Path(outcome["folder"]) / "model.safetensors").read_bytes()
    assert weights == mini["model.safetensors"]
    assert played.files_sent() == set(mini)
    assert {request.method for request in played.requests} == {"GET", "HEAD"}

    for settings in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": CLOSED}):
        offline, _ = fetched("acme/old", tmp_path, **settings)
        assert offline["folder"] == outcome["folder"]


@pytest.mark.parametrize(
    ("author", "title", "status"),
    [
        ("somebody", CONVERSION, "open"),
        (CONVERTER, "Another thing", "open"),
        (CONVERTER, CONVERSION, "closed"),
    ],
)
def test_a_pull_request_that_is_no_conversion_is_ignored(
    played: PlayedHub, tmp_path: Path, mini: Model, author: str, title: str, status: str
) -> None:
    repository = Repository(pickled(mini))
    repository.propose(NEXT, mini, author, title, status)
    played.repositories["acme/old"] = repository
    outcome, _ = fetched("acme/old", tmp_path, HF_ENDPOINT=played.endpoint)
    assert_fails(outcome, "acme/old on the Hub has its weights as pytorch_model.bin only")
    assert not played.files_sent()


def test_a_conversion_of_other_weights_is_ignored(
    played: PlayedHub, tmp_path: Path, mini: Model
) -> None:
    repository = Repository(pickled(mini))
    repository.propose(NEXT, mini, CONVERTER, CONVERSION)
    repository.push(OTHER, pickled(mini) | {"pytorch_model.bin": b"other weights"})
    played.repositories["acme/old"] = repository
    outcome, _ = fetched("acme/old", tmp_path, HF_ENDPOINT=played.endpoint)
    assert_fails(outcome, "acme/old on the Hub has its weights as pytorch_model.bin only")
