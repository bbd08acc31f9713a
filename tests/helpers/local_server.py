"""An HTTP server in a thread of this process, on a free local port."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler], hub: Any) -> Iterator[None]:
    """Serves a handler of a fake hub; sets the hub's `endpoint`, and `released` at the end."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield
    finally:
        hub.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
