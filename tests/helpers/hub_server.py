"""A fake Hub: a small HTTP server for HF_ENDPOINT, with models and data sets.

The libraries read their environment at import, so its clients run in a new process.
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
LFS = (".safetensors", ".bin", ".model")  # large files: the Hub redirects to signed URLs


class Repository:
    """A repository of the server.

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
        """Opens a pull request on the current "main"."""
        number = len(self.discussions) + 1
        self.trees[commit] = files
        self.refs[f"refs/pr/{number}"] = [commit, *self.refs["main"]]
        about = {"num": number, "title": title, "status": status, "author": {"name": author}}
        repo = {"name": "acme/any", "type": "model"}
        self.discussions.append({**about, "createdAt": DATE, "repo": repo, "isPullRequest": True})

    def commit(self, revision: str) -> str | None:
        """Returns the full hash of a branch, pull request or commit."""
        return self.refs.get(revision, [revision if revision in self.trees else None])[0]


@dataclass(frozen=True)
class Request:
    """A request to the server."""

    method: str
    path: str
    authorization: str | None
    range: str | None


@dataclass
class FakeHub:
    """Content and behavior of the server.

    Attributes:
        repositories: By id.
        statuses: HTTP status of all responses about an id.
        silent: Ids of repositories that never respond.
        stalls: Ids of repositories that never send a file.
        gated: Ids of repositories that deny access to their files.
        cuts: Bytes after which the transfer of a file stops, by file name.
        after_cut: "fail": status 500 when resumed; "wait": the connection stays open.
        requests: All requests, in order.
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
def serve(hub: FakeHub) -> Iterator[FakeHub]:
    """Runs the server in a thread."""
    with listening(Handler, hub):
        yield hub


class Handler(BaseHTTPRequestHandler):
    """Responds to the few requests that the libraries need to read a repository."""

    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        rest = url.path.removeprefix("/api")
        for kind in ("/datasets", "/models"):
            rest = rest.removeprefix(kind)
        # A reference such as refs/pr/1 is one part: its slashes are quoted.
        parts = [unquote(part) for part in rest.split("/")]
        _, owner, name, *place = parts if len(parts) > 2 else [*parts, ""]
        repo_id, file_wanted = f"{owner}/{name}", place[:1] == ["resolve"]
        if owner != "agent-harnesses":  # sent by the library itself
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
            self.respond(self.hub.statuses[repo_id], code="RepoNotFound")
        elif repo_id not in self.hub.repositories:
            self.respond(404, code="RepoNotFound")
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
            # Not filtered by author: the client must check it.
            found = repository.discussions
            self.respond(200, {"discussions": found, "count": len(found), "start": 0})
        elif folder or verb not in ("", "revision", "tree", "commits"):
            self.respond(404, code="EntryNotFound")
        elif commit is None:
            self.respond(404, code="RevisionNotFound")
        elif verb == "commits":
            history = repository.refs.get(revision, [commit])
            entry = {"authors": [], "date": DATE, "title": "", "message": ""}
            self.respond(200, [{**entry, "id": commit} for commit in history])
        elif verb == "tree":
            self.respond(200, [as_entry(*file) for file in repository.trees[commit].items()])
        else:
            about = as_sibling if blobs else lambda name, _: {"rfilename": name}
            files = [about(*file) for file in repository.trees[commit].items()]
            self.respond(200, {"id": repo_id, "sha": commit, "siblings": files}, commit)

    def send_file(self, repo_id: str, revision: str, *path: str) -> None:
        repository, name = self.hub.repositories[repo_id], "/".join(path)
        commit = repository.commit(revision)
        content = repository.trees.get(commit or "", {}).get(name)
        if content is None:
            self.respond(404, code="EntryNotFound")
        elif repo_id in self.hub.gated:
            self.respond(403, code="GatedRepo")
        elif name.endswith(LFS):
            self.send_response(302)
            # Another host name: the storage of large files must not receive the token.
            where = f"http://localhost:{self.server.server_port}/signed/{repo_id}/{commit}/{name}"  # type: ignore[attr-defined]
            self.send_header("Location", f"{where}?Signature={SIGNATURE}")
            self.send_header("X-Repo-Commit", commit or "")
            self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("X-Linked-Etag", f'"{sha256(content).hexdigest()}"')
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.respond(200, content, commit)

    def send_signed(self, owner: str, name: str, commit: str, file: str) -> None:
        content = self.hub.repositories[f"{owner}/{name}"].trees[commit][file]
        start = int((self.headers["range"] or "bytes=0-")[len("bytes=") :].rstrip("-"))
        cut = self.hub.cuts.get(file)
        if cut is not None and start:
            self.respond(500)
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

    def respond(
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
        """Logs nothing."""


def blob_id(content: bytes) -> str:
    return sha1(b"blob %d\0" % len(content) + content).hexdigest()


def as_entry(name: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": len(content), "oid": blob_id(content)}


def as_sibling(name: str, content: bytes) -> dict[str, Any]:
    lfs = {"size": len(content), "sha256": sha256(content).hexdigest(), "pointerSize": 130}
    about = {"rfilename": name, "size": len(content), "blobId": blob_id(content)}
    return about | ({"lfs": lfs} if name.endswith(LFS) else {})


def environment(cache: Path, **settings: str) -> dict[str, str]:
    """Returns the environment of a process with its own cache and a login."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(("HF_", "HUGGING", "TRANSFORMERS_", "HTTP", "ALL_PROXY"))
    }
    # On a busy machine a response may take longer than the ten seconds of the library.
    timeouts = dict.fromkeys(("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"), "120")
    login = {"HF_HOME": str(cache), "HF_TOKEN": TOKEN, "NO_PROXY": "*"}
    return inherited | login | timeouts | settings


def run(program: str, cache: Path, *arguments: str, **settings: str) -> tuple[Any, str]:
    """Runs a Python program; returns the JSON that it printed, and its stderr."""
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
    """Waits until a condition is true, and fails after a timeout."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timeout"
        time.sleep(0.05)
