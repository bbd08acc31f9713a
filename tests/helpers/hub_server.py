"""A small HTTP server that plays the Hub behind HF_ENDPOINT, with repositories of two kinds.

The libraries read their environment at import, so what talks to it is a process of its own.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.helpers.local_server import listening

TOKEN = "hf_thisIsASecretThatNoMessageMayHold"
SIGNATURE = "aSignatureThatNoMessageMayHold"
COMMIT = "c0ffee" * 6 + "cafe"
DATE = "2026-01-01T00:00:00.000Z"
LFS = (".safetensors", ".bin", ".model")  # kept elsewhere: the Hub redirects to signed URLs


class Repository:
    """What the server holds under one id.

    Attributes:
        trees: Files of each commit.
        refs: Commits of "main" and of each pull request, newest first.
        discussions: Pull requests, as the Hub lists them.
    """

    def __init__(self, files: dict[str, bytes], commit: str = COMMIT) -> None:
        self.trees = {commit: files}
        self.refs = {"main": [commit]}
        self.discussions: list[dict[str, Any]] = []

    def push(self, commit: str, files: dict[str, bytes]) -> None:
        """Moves "main" to a new commit."""
        self.trees[commit] = files
        self.refs["main"].insert(0, commit)

    def propose(
        self, commit: str, files: dict[str, bytes], author: str, title: str, status: str = "open"
    ) -> None:
        """Opens a pull request on what "main" is now."""
        number = len(self.discussions) + 1
        self.trees[commit] = files
        self.refs[f"refs/pr/{number}"] = [commit, *self.refs["main"]]
        about = {"num": number, "title": title, "status": status, "author": {"name": author}}
        repo = {"name": "acme/any", "type": "model"}
        self.discussions.append(
            {**about, "createdAt": DATE, "repo": repo, "isPullRequest": True}
        )  # fmt: skip

    def commit(self, revision: str) -> str | None:
        """Returns the full hash of a branch, pull request or commit."""
        return self.refs.get(revision, [revision if revision in self.trees else None])[0]


@dataclass(frozen=True)
class Request:
    """What the server was asked."""

    method: str
    path: str
    authorization: str | None
    range: str | None


@dataclass
class PlayedHub:
    """What the server holds and how it behaves.

    Attributes:
        repositories: By id.
        statuses: Status with which it answers all about an id.
        silent: Ids about which it never answers.
        stalls: Ids whose files it never sends.
        gated: Ids whose files it refuses.
        cuts: File names of which it sends the first so many bytes, and then …
        after_cut: "fail": answers 500; "wait": sends no more, on the same connection.
        requests: All it was asked, in order.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    stalls: set[str] = field(default_factory=set)
    gated: set[str] = field(default_factory=set)
    cuts: dict[str, int] = field(default_factory=dict)
    after_cut: str = "fail"
    requests: list[Request] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    endpoint: str = ""

    def files_sent(self) -> set[str]:
        """Returns the names of the files whose content was asked for."""
        return {
            request.path.rpartition("/")[2]
            for request in self.requests
            if request.method == "GET" and "/resolve/" in request.path
        }


@contextmanager
def serve(hub: PlayedHub) -> Iterator[PlayedHub]:
    """Runs the server in a thread."""
    with listening(Handler, hub):
        yield hub


class Handler(BaseHTTPRequestHandler):
    """Answers the few requests by which the libraries get at the files of a repository."""

    protocol_version = "HTTP/1.1"
    hub: PlayedHub

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        rest = url.path.removeprefix("/api")
        for kind in ("/datasets", "/models"):
            rest = rest.removeprefix(kind)
        # A reference such as refs/pr/1 is one part: its slashes come quoted.
        parts = [unquote(part) for part in rest.split("/")]
        _, owner, name, *place = parts if len(parts) > 2 else [*parts, ""]
        repo_id, file_wanted = f"{owner}/{name}", place[:1] == ["resolve"]
        if owner != "agent-harnesses":  # a thing the library asks by itself
            self.hub.requests.append(
                Request(
                    self.command, url.path, self.headers["authorization"], self.headers["range"]
                )
            )
        if url.path.startswith("/signed/"):
            self.send_signed(*url.path.split("/")[2:])
        elif repo_id in self.hub.silent or (file_wanted and repo_id in self.hub.stalls):
            self.wait()
        elif repo_id in self.hub.statuses:
            self.answer(self.hub.statuses[repo_id], code="RepoNotFound")
        elif repo_id not in self.hub.repositories:
            self.answer(404, code="RepoNotFound")
        elif file_wanted:
            self.send_file(repo_id, *place[1:])
        else:
            self.describe(repo_id, *place, blobs="blobs" in url.query)

    do_HEAD = do_GET

    def describe(
        self, repo_id: str, verb: str = "", revision: str = "main", *folder: str, blobs: bool
    ) -> None:
        repository = self.hub.repositories[repo_id]
        commit = repository.commit(revision)
        if verb == "discussions":
            # Not filtered by author, as it is for a client to look twice.
            found = repository.discussions
            self.answer(200, {"discussions": found, "count": len(found), "start": 0})
        elif folder or verb not in ("", "revision", "tree", "commits"):
            self.answer(404, code="EntryNotFound")
        elif commit is None:
            self.answer(404, code="RevisionNotFound")
        elif verb == "commits":
            history = repository.refs.get(revision, [commit])
            entry = {"authors": [], "date": DATE, "title": "", "message": ""}
            self.answer(200, [{**entry, "id": commit} for commit in history])
        elif verb == "tree":
            self.answer(200, [as_entry(*file) for file in repository.trees[commit].items()])
        else:
            about = as_sibling if blobs else lambda name, _: {"rfilename": name}
            files = [about(*file) for file in repository.trees[commit].items()]
            self.answer(200, {"id": repo_id, "sha": commit, "siblings": files}, commit)

    def send_file(self, repo_id: str, revision: str, *path: str) -> None:
        repository, name = self.hub.repositories[repo_id], "/".join(path)
        commit = repository.commit(revision)
        content = repository.trees.get(commit or "", {}).get(name)
        if content is None:
            self.answer(404, code="EntryNotFound")
        elif repo_id in self.hub.gated:
            self.answer(403, code="GatedRepo")
        elif name.endswith(LFS):
            self.send_response(302)
            # By another name: what holds the large files must not see the token.
            where = f"http://localhost:{self.server.server_port}/signed/{repo_id}/{commit}/{name}"  # type: ignore[attr-defined]
            self.send_header("Location", f"{where}?Signature={SIGNATURE}")
            self.send_header("X-Repo-Commit", commit or "")
            self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("X-Linked-Etag", f'"{sha256(content).hexdigest()}"')
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.answer(200, content, commit)

    def send_signed(self, owner: str, name: str, commit: str, file: str) -> None:
        content = self.hub.repositories[f"{owner}/{name}"].trees[commit][file]
        start = int((self.headers["range"] or "bytes=0-")[len("bytes=") :].rstrip("-"))
        cut = self.hub.cuts.get(file)
        if cut is not None and start:
            self.answer(500)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[start:cut])
        if cut is not None and self.hub.after_cut == "wait":
            self.wait()
        self.close_connection = True

    def answer(
        self, status: int, content: object = b"", commit: str | None = COMMIT, code: str = ""
    ) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", commit or "")
        self.send_header("ETag", f'"{blob_id(body)}"')
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def wait(self) -> None:
        self.hub.released.wait()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def blob_id(content: bytes) -> str:
    return sha1(b"blob %d\0" % len(content) + content).hexdigest()


def as_entry(name: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": len(content), "oid": blob_id(content)}


def as_sibling(name: str, content: bytes) -> dict[str, Any]:
    lfs = {"size": len(content), "sha256": sha256(content).hexdigest(), "pointerSize": 130}
    about = {"rfilename": name, "size": len(content), "blobId": blob_id(content)}
    return about | ({"lfs": lfs} if name.endswith(LFS) else {})


def environment(cache: Path, **settings: str) -> dict[str, str]:
    """Returns the environment of a process with an own cache and a login."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(("HF_", "HUGGING", "TRANSFORMERS_", "HTTP", "ALL_PROXY"))
    }
    # On a busy machine the answer may take longer than the ten seconds of the library.
    patient = dict.fromkeys(("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"), "120")
    own = {"HF_HOME": str(cache), "HF_TOKEN": TOKEN, "NO_PROXY": "*"}
    return kept | own | patient | settings


def run(program: str, cache: Path, *arguments: str, **settings: str) -> tuple[Any, str]:
    """Runs a program to its end; returns the JSON that it printed, and its stderr."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment(cache, **settings),
        cwd=cache,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    for secret in (TOKEN, SIGNATURE):
        assert secret not in done.stdout + done.stderr
    return json.loads(done.stdout), done.stderr


def wait_until(condition: Any, seconds: float = 300) -> None:
    """Waits for something to become true, and fails where it does not."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
