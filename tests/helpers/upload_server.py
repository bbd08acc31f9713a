"""A small HTTP server that plays the side of the Hub that takes files, for HF_ENDPOINT.

It keeps what it is given, takes no file without a token, and can be told to refuse or to stall.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.helpers.local_server import listening

COMMIT = "beef" * 10


class UploadHub:
    """What the server holds and how it behaves.

    Attributes:
        endpoint: Its address, for HF_ENDPOINT.
        token: The only one that it accepts.
        requests: "METHOD path" of all that was asked, in order.
        private: Repositories and whether they are private.
        commits: Of each commit, the files that it brought.
        statuses: Status to answer where a request contains the text.
        recovers: Whether such a status is answered once only.
        stalls: Text of requests that get no answer until the end.
        stalled: Set once such a request came.
    """

    def __init__(self, token: str) -> None:
        self.endpoint = ""
        self.token = token
        self.requests: list[str] = []
        self.private: dict[str, bool] = {}
        self.commits: list[dict[str, bytes]] = []
        self.statuses: dict[str, int] = {}
        self.recovers = False
        self.stalls = ""
        self.stalled = threading.Event()
        self.released = threading.Event()
        self.blobs: dict[str, bytes] = {}


@contextmanager
def played_hub(token: str) -> Iterator[UploadHub]:
    """Runs a server in a thread."""
    hub = UploadHub(token)
    with listening(Handler, hub):
        yield hub


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of `HfApi.whoami`, `create_repo`, `model_info` and `create_commit`."""

    protocol_version = "HTTP/1.1"
    hub: UploadHub

    def do_POST(self) -> None:
        hub, request = self.hub, f"{self.command} {self.path}"
        hub.requests.append(request)
        if hub.stalls and hub.stalls in request:
            hub.stalled.set()
            hub.released.wait()
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers["content-length"] or 0))
        told = next((status for text, status in hub.statuses.items() if text in request), 0)
        if told and hub.recovers:
            hub.statuses = {}
        # Like the store behind the Hub, which is asked by signed addresses.
        signed = self.path.startswith("/blobs/") and self.path.endswith("?signature=secret")
        if told:
            self.answer(told, {"error": f"told so, {hub.token}", "errors": [{"message": "no"}]})
        elif not signed and self.headers["authorization"] != f"Bearer {hub.token}":
            self.answer(401, {"error": "Invalid credentials"})
        else:
            self.take(body)

    do_GET = do_PUT = do_POST

    def take(self, body: bytes) -> None:
        hub, path = self.hub, self.path.partition("?")[0]
        if path.startswith("/blobs/"):
            hub.blobs[path.removeprefix("/blobs/")] = body
            self.answer(200, {})
        elif path == "/api/whoami-v2":
            self.answer(200, {"name": "ada", "type": "user"})
        elif path == "/api/validate-yaml":
            self.answer(200, {"warnings": [], "errors": []})
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif path.endswith("/preupload/main"):
            self.answer(200, {"files": [self.mode(file) for file in json.loads(body)["files"]]})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [self.transfer(file) for file in json.loads(body)["objects"]]
            self.answer(200, {"transfer": "basic", "objects": objects})
        elif path.endswith("/commit/main"):
            self.commit([json.loads(line) for line in body.splitlines()])
        elif path.removeprefix("/api/models/") in hub.private:
            name = path.removeprefix("/api/models/")
            self.answer(200, {"id": name, "sha": COMMIT, "private": hub.private[name]})
        else:
            self.answer(404, {"error": "no such thing"})

    def create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        known = name in self.hub.private
        self.hub.private.setdefault(name, wanted.get("visibility") == "private")
        self.answer(409 if known else 200, {"url": f"{self.hub.endpoint}/{name}"})

    def mode(self, file: dict[str, Any]) -> dict[str, Any]:
        mode = "lfs" if file["path"].endswith((".safetensors", ".png")) else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}

    def transfer(self, file: dict[str, Any]) -> dict[str, Any]:
        address = f"{self.hub.endpoint}/blobs/{file['oid']}?signature=secret"
        return file | {"actions": {"upload": {"href": address}}}

    def commit(self, lines: list[dict[str, Any]]) -> None:
        files = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                content = self.hub.blobs[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                files[value["path"]] = content
        self.hub.commits.append(files)
        address = f"{self.hub.endpoint}/owner/name/commit/{COMMIT}"
        self.answer(200, {"commitUrl": address, "commitOid": COMMIT})

    def answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""
