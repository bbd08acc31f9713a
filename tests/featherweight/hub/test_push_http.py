"""`push` over real HTTP, to a small server at HF_ENDPOINT."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from featherweight.hub.config import PushConfig
from featherweight.hub.push import contents, push
from featherweight.run import MODEL, TRANSFORMER, Run
from tests.helpers.pushes import (
    LSTM_FILES,
    REPO_ID,
    TOKEN,
    TRANSFORMER_FILES,
    change,
    content,
    pushed,
    started,
)
from tests.helpers.upload_server import played_hub


@pytest.fixture
def hub() -> Iterator[Any]:
    with played_hub(TOKEN) as hub:
        yield hub


def test_a_push_is_one_commit_with_what_the_dry_run_lists(run: Path, hub: Any) -> None:
    code, stdout, stderr = pushed(run.parent, hub.endpoint, weights=run)
    assert (code, stderr) == (0, "")
    assert stdout.endswith("pushed to ada/moods, commit beefbeef\n")
    (files,) = hub.commits
    assert files == {name: content(file) for name, file in contents(Run(run), REPO_ID).items()}
    listed = push(PushConfig(weights=run, repo_id=REPO_ID, dry_run=True))
    assert stdout.partition("\n\n")[0] == listed.partition("\n\n")[0]
    assert hub.private == {REPO_ID: False}


def test_a_transformer_is_pushed_to_the_root_of_the_repository(
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


def test_a_run_can_be_pushed_again_to_its_private_repository(run: Path, hub: Any) -> None:
    assert pushed(run.parent, hub.endpoint, weights=run, private=True)[0] == 0
    change(run, "evaluation.json", split="test")
    assert pushed(run.parent, hub.endpoint, weights=run, private=True)[0] == 0
    assert hub.private == {REPO_ID: True}
    first, second = hub.commits
    assert first["evaluation.json"] != second["evaluation.json"]


def test_a_private_push_to_a_public_repository_is_refused(run: Path, hub: Any) -> None:
    hub.private[REPO_ID] = False
    code, stdout, stderr = pushed(run.parent, hub.endpoint, weights=run, private=True)
    assert (code, stdout) == (2, "")
    assert stderr.startswith("ada/moods already exists and is public: make it private")
    assert hub.commits == []


@pytest.mark.parametrize(
    ("request_", "status", "flags", "code", "expected"),
    [
        ("whoami", 403, {}, 2, "the Hub rejects your token: log in again with: hf auth"),
        ("whoami", 503, {}, 1, "127.0.0.1 cannot be reached (HTTP 503): nothing was sent"),
        ("repos/create", 401, {}, 2, "your token may not write to ada/moods: give a repository"),
        ("repos/create", 500, {}, 1, "the push to ada/moods failed (HTTP 500)"),
        ("validate-yaml", 400, {"license": "mine"}, 2, "check the identifier of --license mine"),
        ("validate-yaml", 400, {}, 1, "the push to ada/moods failed (HTTP 400)"),
        ("PUT /blobs", 400, {}, 1, "the push to ada/moods failed (HTTP 400)"),
        ("/commit/main", 403, {}, 2, "your token may not write to ada/moods"),
    ],
)  # fmt: skip
def test_a_rejected_request_is_one_line_and_leaves_no_commit(
    run: Path, hub: Any, request_: str, status: int, flags: dict[str, str], code: int,
    expected: str,
) -> None:  # fmt: skip
    hub.statuses = {request_: status}
    exit_code, stdout, stderr = pushed(run.parent, hub.endpoint, weights=run, **flags)
    assert (exit_code, stdout) == (code, "")
    assert expected in stderr
    assert stderr.count("\n") == 1
    assert hub.commits == []


def test_a_wrong_token_is_found_before_anything_is_created(run: Path, hub: Any) -> None:
    code, _, stderr = pushed(run.parent, hub.endpoint, {"HF_TOKEN": "hf_wrong"}, weights=run)
    assert code == 2
    assert "the Hub rejects your token" in stderr
    assert "hf_wrong" not in stderr
    assert "GET /api/whoami-v2" in hub.requests
    assert not any(request.startswith("POST") for request in hub.requests)


@pytest.mark.parametrize("token", [f"{TOKEN}\tx", f"{TOKEN}ü"])
def test_an_unsendable_token_is_not_repeated(run: Path, hub: Any, token: str) -> None:
    code, _, stderr = pushed(run.parent, hub.endpoint, {"HF_TOKEN": token}, weights=run)
    assert code != 0
    assert stderr.count("\n") == 1
    assert hub.commits == []


def test_a_failed_upload_is_retried_silently(run: Path, hub: Any) -> None:
    hub.statuses, hub.recovers = {"PUT /blobs": 500}, True
    code, _, stderr = pushed(run.parent, hub.endpoint, weights=run)
    assert (code, stderr) == (0, "")
    assert len(hub.commits) == 1


def test_a_killed_push_changes_nothing(run: Path, hub: Any) -> None:
    hub.stalls = "PUT /blobs"
    process = started(run.parent, hub.endpoint, {}, weights=run)
    assert hub.stalled.wait(300)
    process.kill()
    process.communicate()
    assert hub.commits == []
    hub.stalls = ""
    assert pushed(run.parent, hub.endpoint, weights=run)[0] == 0
    (files,) = hub.commits
    assert files.keys() == LSTM_FILES


def test_a_missing_login(run: Path, hub: Any) -> None:
    code, stdout, stderr = pushed(run.parent, hub.endpoint, {"HF_TOKEN": ""}, weights=run)
    assert (code, stdout) == (2, "")
    assert stderr == "you are not logged in to the Hub: log in with: hf auth login\n"
    assert hub.requests == []


def test_offline_nothing_is_pushed(run: Path, hub: Any) -> None:
    code, _, stderr = pushed(run.parent, hub.endpoint, {"HF_HUB_OFFLINE": "1"}, weights=run)
    assert code == 2
    assert stderr == "HF_HUB_OFFLINE is set: unset it to push, or use --dry_run\n"
    assert hub.requests == []


def test_an_unreachable_hub_is_one_line(run: Path) -> None:
    # Nothing listens on port 1; no message may repeat the password.
    code, _, stderr = pushed(run.parent, "http://user:pass-word@127.0.0.1:1", weights=run)
    assert code == 1
    assert stderr.startswith("127.0.0.1 cannot be reached (ConnectError): nothing was sent")
    assert stderr.count("\n") == 1
    assert "pass-word" not in stderr


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ("whoami", "127.0.0.1 did not respond within 1 s: nothing was sent, try again later\n"),
        ("repos/create", "the push to ada/moods failed (127.0.0.1 did not respond within 2 s)"),
    ],
)
def test_a_hub_that_does_not_respond(run: Path, hub: Any, request_: str, expected: str) -> None:
    hub.stalls = request_
    answer_s = 1.0 if request_ == "whoami" else 60.0
    code, _, stderr = pushed(
        run.parent, hub.endpoint, weights=run, answer_s=answer_s, metadata_s=2.0
    )
    assert code == 1
    assert stderr.startswith(expected)
    assert stderr.count("\n") == 1
    assert hub.commits == []
