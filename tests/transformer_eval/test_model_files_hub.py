import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from featherweight.hub import client
from tests.helpers.fetching import FETCH, Model, assert_fails, fetched
from tests.helpers.hub_server import (
    COMMIT,
    TOKEN,
    FakeHub,
    Repository,
    environment,
    run,
    wait_until,
)
from transformer_eval.model_files import CONVERSION, CONVERTER, INDEX
from transformer_eval.registry import REGISTRY

NEXT = "ca11ab1e" * 5
OTHER = "0badf00d" * 5
CLOSED = "http://user:pass-word@127.0.0.1:1"  # no server listens on port 1
DISTILBERT = REGISTRY["distilbert"]


def pickled(mini: Model) -> Model:
    return {name: content for name, content in mini.items() if name != "model.safetensors"} | {
        "pytorch_model.bin": b"pickled",
        "training_args.bin": b"pickled",
    }


# The Hub


def test_a_model_of_the_hub_is_downloaded_and_works(
    hub: FakeHub, tmp_path: Path, mini: Model
) -> None:
    extra = {"pytorch_model.bin", "tf_model.h5", "model.onnx", "modeling_x.py", "README.md", "a.pt"}
    extra |= {"onnx/tokenizer.json", "rust_model.ot", "training_args.bin"}
    hub.repositories["acme/mini"] = Repository(mini | dict.fromkeys(extra, b"not needed"))
    outcome, log = fetched("acme/mini", tmp_path, HF_ENDPOINT=hub.endpoint)
    assert (outcome["name"], outcome["revision"], outcome["known"]) == ("mini", COMMIT, False)
    assert set(outcome["files"]) == set(mini)
    assert hub.files_sent() == set(mini)
    assert log == ""
    seen = {(r.path.startswith("/signed/"), r.authorization) for r in hub.requests}
    assert seen == {(False, f"Bearer {TOKEN}"), (True, None)}  # only the Hub gets the token
    folder = Path(outcome["folder"])
    model = AutoModelForSequenceClassification.from_pretrained(folder, use_safetensors=True)
    batch = AutoTokenizer.from_pretrained(folder)(["good bad"], return_tensors="pt")
    assert model(**batch).logits.shape == (1, 2)


def test_cache_is_used_until_main_has_a_new_commit(
    hub: FakeHub, tmp_path: Path, mini: Model
) -> None:
    first, _ = fetched("acme/mini", tmp_path, HF_ENDPOINT=hub.endpoint)
    hub.requests.clear()
    second, _ = fetched("acme/mini", tmp_path, HF_ENDPOINT=hub.endpoint)
    assert second["revision"] == COMMIT
    assert [request.path for request in hub.requests] == ["/api/models/acme/mini"]

    unreachable, log = fetched("acme/mini", tmp_path, HF_ENDPOINT=CLOSED)
    assert unreachable["folder"] == first["folder"]
    assert log.startswith("127.0.0.1 cannot be reached (")
    assert log.endswith("): acme/mini is read from the cache\n")
    assert log.count("\n") == 1

    hub.repositories["acme/mini"].push(NEXT, mini | {"model.safetensors": b"better"})
    outcome, _ = fetched("acme/mini", tmp_path, HF_ENDPOINT=hub.endpoint)
    assert outcome["revision"] == NEXT
    assert (Path(outcome["folder"]) / "model.safetensors").read_bytes() == b"better"
    offline, _ = fetched("acme/mini", tmp_path, HF_HUB_OFFLINE="1")
    assert offline["folder"] == outcome["folder"]


def test_registry_name_uses_its_commit(hub: FakeHub, tmp_path: Path, mini: Model) -> None:
    assert DISTILBERT.revision
    repository = Repository(mini, DISTILBERT.revision)
    repository.push(NEXT, mini | {"model.safetensors": b"newer"})
    hub.repositories[DISTILBERT.hub_id] = repository
    outcome, _ = fetched("distilbert", tmp_path, HF_ENDPOINT=hub.endpoint)
    assert (outcome["name"], outcome["known"]) == ("distilbert", True)
    assert outcome["revision"] == DISTILBERT.revision
    offline, log = fetched("distilbert", tmp_path, HF_HUB_OFFLINE="1")
    assert offline["folder"] == outcome["folder"]
    assert f"HF_HUB_OFFLINE is set: {DISTILBERT.hub_id} is read from the cache" in log


def test_missing_commit_is_reported(hub: FakeHub, tmp_path: Path, mini: Model) -> None:
    hub.repositories[DISTILBERT.hub_id] = Repository(mini, NEXT)
    outcome, _ = fetched("distilbert", tmp_path, HF_ENDPOINT=hub.endpoint)
    assert_fails(outcome, "but not the requested commit")


def test_all_shards_are_downloaded(hub: FakeHub, tmp_path: Path, mini: Model) -> None:
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = json.dumps({"weight_map": dict(zip("ab", shards, strict=True))}).encode()
    files = {name: content for name, content in mini.items() if name != "model.safetensors"}
    files |= {INDEX: index, shards[0]: b"one", shards[1]: b"two"}
    hub.repositories["acme/mini"] = Repository(files)
    outcome, _ = fetched("acme/mini", tmp_path, HF_ENDPOINT=hub.endpoint)
    assert {INDEX, *shards} < set(outcome["files"])

    del files[shards[1]]
    hub.repositories["acme/mini"] = Repository(files, NEXT)
    outcome, _ = fetched("acme/mini", tmp_path, HF_ENDPOINT=hub.endpoint)
    assert_fails(outcome, f"lacks {shards[1]} on the Hub")


def test_unavailable_models_are_reported(hub: FakeHub, tmp_path: Path, mini: Model) -> None:
    hub.statuses |= {"acme/private": 401, "acme/forbidden": 403, "acme/busy": 503}
    hub.silent.add("acme/silent")
    hub.gated.add("acme/gated")
    no_config = {name: content for name, content in mini.items() if name != "config.json"}
    hub.repositories |= {
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
    outcomes, log = run(FETCH, tmp_path, *expected, HF_ENDPOINT=hub.endpoint)
    for name, message in expected.items():
        assert_fails(outcomes[name], message)
    assert log == ""
    # The command promises an answer within ten seconds, including the imports.
    assert client.ANSWER_S <= 4


# Without a connection


def test_unreachable_hub_is_reported_in_one_line(tmp_path: Path) -> None:
    outcome, log = fetched("acme/mini", tmp_path, HF_ENDPOINT=CLOSED)
    assert_fails(outcome, "is not in the cache and is not a registry name or local folder: ")
    for instead in ("give a local folder", "the cache"):
        assert instead in outcome["message"]
    assert "minilm" not in outcome["message"]
    assert log == ""


def test_error_for_a_registry_name_names_its_repository(tmp_path: Path, hub: FakeHub) -> None:
    outcome, _ = fetched("distilbert", tmp_path, HF_ENDPOINT=CLOSED)
    assert_fails(outcome, f"and {DISTILBERT.hub_id} is not in the cache: ")
    outcome, _ = fetched("distilbert", tmp_path, HF_ENDPOINT=hub.endpoint)
    assert_fails(outcome, f"the Hub no longer has the model {DISTILBERT.hub_id}: ")


def test_incomplete_cache_is_not_used(hub: FakeHub, tmp_path: Path) -> None:
    online, _ = fetched("acme/mini", tmp_path, HF_ENDPOINT=hub.endpoint)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        blob = (Path(online["folder"]) / name).resolve()
        moved = blob.rename(tmp_path / name)  # leaves a broken link in the folder
        outcome, _ = fetched("acme/mini", tmp_path, HF_HUB_OFFLINE="1")
        assert_fails(outcome, "HF_HUB_OFFLINE is set, and acme/mini is not in the cache")
        moved.rename(blob)


def test_models_cached_by_other_programs_are_used(
    hub: FakeHub, tmp_path: Path, mini: Model
) -> None:
    program = """
import huggingface_hub, json
print(json.dumps(huggingface_hub.snapshot_download("acme/mini")))
"""
    folder, _ = run(program, tmp_path, HF_ENDPOINT=hub.endpoint, HF_HUB_DISABLE_XET="1")
    outcome, _ = fetched("acme/mini", tmp_path, HF_HUB_OFFLINE="1")
    assert outcome["folder"] == folder


# Interrupted downloads


@pytest.fixture
def large(mini: Model, hub: FakeHub) -> Model:
    """Weights of 24 MiB, which the library writes in blocks of 10."""
    files = mini | {"model.safetensors": os.urandom(24 << 20)}
    hub.repositories["acme/large"] = Repository(files)
    hub.cuts["model.safetensors"] = 23 << 20
    return files


def parts(cache: Path) -> list[int]:
    """Returns the size in bytes of each unfinished download."""
    return [path.stat().st_size for path in cache.rglob("*.incomplete")]


def assert_resumes(cache: Path, hub: FakeHub, large: Model) -> None:
    hub.cuts.clear()
    hub.requests.clear()
    outcome, _ = fetched("acme/large", cache, HF_ENDPOINT=hub.endpoint)
    content = (Path(outcome["folder"]) / "model.safetensors").read_bytes()
    assert sha256(content).digest() == sha256(large["model.safetensors"]).digest()
    ranges = {r.range for r in hub.requests if r.path.startswith("/signed/")}
    assert ranges == {f"bytes={20 << 20}-"}
    assert not parts(cache)


def test_failed_download_is_resumed_by_the_next_call(
    hub: FakeHub, tmp_path: Path, large: Model
) -> None:
    outcome, log = fetched("acme/large", tmp_path, HF_ENDPOINT=hub.endpoint)
    assert_fails(outcome, "acme/large cannot be loaded from the Hub (HTTP 500): try again")
    assert log == ""
    assert parts(tmp_path) == [20 << 20]
    assert_resumes(tmp_path, hub, large)


def test_killed_download_is_resumed_by_the_next_call(
    hub: FakeHub, tmp_path: Path, large: Model
) -> None:
    hub.after_cut = "wait"
    process = subprocess.Popen(
        [sys.executable, "-c", FETCH, "acme/large"],
        env=environment(tmp_path, HF_ENDPOINT=hub.endpoint),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: parts(tmp_path) == [20 << 20])
    finally:
        process.kill()
        process.wait()
    offline, _ = fetched("acme/large", tmp_path, HF_HUB_OFFLINE="1")
    assert_fails(offline, "acme/large is not in the cache")
    assert_resumes(tmp_path, hub, large)


def test_damaged_partial_download_is_detected_and_downloaded_again(
    hub: FakeHub, tmp_path: Path, large: Model
) -> None:
    fetched("acme/large", tmp_path, HF_ENDPOINT=hub.endpoint)
    (part,) = tmp_path.rglob("*.incomplete")
    part.write_bytes(b"x" * (20 << 20))
    hub.cuts.clear()
    outcome, _ = fetched("acme/large", tmp_path, HF_ENDPOINT=hub.endpoint)
    assert_fails(outcome, "(OSError: model.safetensors was damaged")
    outcome, _ = fetched("acme/large", tmp_path, HF_ENDPOINT=hub.endpoint)
    assert "model.safetensors" in outcome["files"]


# Pickled weights, and the Hub's own conversion of them


def test_pickled_weights_on_the_hub_are_refused(hub: FakeHub, tmp_path: Path, mini: Model) -> None:
    hub.repositories["acme/old"] = Repository(pickled(mini))
    outcome, _ = fetched("acme/old", tmp_path, HF_ENDPOINT=hub.endpoint)
    assert_fails(outcome, "acme/old on the Hub has its weights only as pytorch_model.bin: pickled")
    assert "can run code when they are loaded" in outcome["message"]
    assert not hub.files_sent()


def test_conversion_by_the_hub_is_used(hub: FakeHub, tmp_path: Path, mini: Model) -> None:
    repository = Repository(pickled(mini))
    evil = {"model.safetensors": b"evil"}
    repository.propose(OTHER, pickled(mini) | evil, "somebody", CONVERSION)
    repository.propose(NEXT, pickled(mini) | mini, CONVERTER, CONVERSION)
    hub.repositories["acme/old"] = repository
    outcome, _ = fetched("acme/old", tmp_path, HF_ENDPOINT=hub.endpoint)
    assert (outcome["name"], outcome["revision"]) == ("old", NEXT)
    weights = (Path(outcome["folder"]) / "model.safetensors").read_bytes()
    assert weights == mini["model.safetensors"]
    assert hub.files_sent() == set(mini)
    assert {request.method for request in hub.requests} == {"GET", "HEAD"}

    for settings in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": CLOSED}):
        offline, _ = fetched("acme/old", tmp_path, **settings)
        assert offline["folder"] == outcome["folder"]


def test_other_pull_requests_are_ignored(hub: FakeHub, tmp_path: Path, mini: Model) -> None:
    proposals = {
        "acme/author": ("somebody", CONVERSION, "open"),
        "acme/title": (CONVERTER, "Another thing", "open"),
        "acme/closed": (CONVERTER, CONVERSION, "closed"),
        "acme/commit": (CONVERTER, CONVERSION, "open"),
    }
    for name, proposal in proposals.items():
        hub.repositories[name] = Repository(pickled(mini))
        hub.repositories[name].propose(NEXT, mini, *proposal)
    # The conversion is of the previous commit.
    other = pickled(mini) | {"pytorch_model.bin": b"other weights"}
    hub.repositories["acme/commit"].push(OTHER, other)
    outcomes, _ = run(FETCH, tmp_path, *proposals, HF_ENDPOINT=hub.endpoint)
    for name in proposals:
        assert_fails(outcomes[name], f"{name} on the Hub has its weights only as pytorch_model.bin")
    assert not hub.files_sent()
