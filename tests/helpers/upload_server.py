"""A small HTTP server with the upload API of the Hub, for HF_ENDPOINT.

It stores uploads, requires a token, and can be configured to reject requests or not to respond.
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
    """Content and behavior of the server.

    Attributes:
        endpoint: Its address, for HF_ENDPOINT.
        token: The only accepted token.
        requests: "METHOD path" of all requests, in order.
        private: Repositories and whether they are private.
        commits: The files of each commit.
        statuses: HTTP status to send for requests that contain the text.
        recovers: Whether such a status is sent only once.
        stalls: Requests that contain this text get no response.
        stalled: Set on such a request.
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
    """Handles the requests of `HfApi.whoami`, `create_repo`, `model_info` and `create_commit`."""

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
        forced = next((status for text, status in hub.statuses.items() if text in request), 0)
        if forced and hub.recovers:
            hub.statuses = {}
        # As with the Hub's file storage, which uses signed URLs.
        signed = self.path.startswith("/blobs/") and self.path.endswith("?signature=secret")
        if forced:
            self.respond(forced, {"error": f"forced, {hub.token}", "errors": [{"message": "no"}]})
        elif not signed and self.headers["authorization"] != f"Bearer {hub.token}":
            self.respond(401, {"error": "Invalid credentials"})
        else:
            self.take(body)

    do_GET = do_PUT = do_POST

    def take(self, body: bytes) -> None:
        hub, path = self.hub, self.path.partition("?")[0]
        if path.startswith("/blobs/"):
            hub.blobs[path.removeprefix("/blobs/")] = body
            self.respond(200, {})
        elif path == "/api/whoami-v2":
            self.respond(200, {"name": "ada", "type": "user"})
        elif path == "/api/validate-yaml":
            self.respond(200, {"warnings": [], "errors": []})
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif path.endswith("/preupload/main"):
            self.respond(200, {"files": [self.mode(file) for file in json.loads(body)["files"]]})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [self.transfer(file) for file in json.loads(body)["objects"]]
            self.respond(200, {"transfer": "basic", "objects": objects})
        elif path.endswith("/commit/main"):
            self.commit([json.loads(line) for line in body.splitlines()])
        elif path.removeprefix("/api/models/") in hub.private:
            name = path.removeprefix("/api/models/")
            self.respond(200, {"id": name, "sha": COMMIT, "private": hub.private[name]})
        else:
            self.respond(404, {"error": "no such thing"})

    def create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        known = name in self.hub.private
        self.hub.private.setdefault(name, wanted.get("visibility") == "private")
        self.respond(409 if known else 200, {"url": f"{self.hub.endpoint}/{name}"})

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
        self.respond(200, {"commitUrl": address, "commitOid": COMMIT})

    def respond(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing."""
