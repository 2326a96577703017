"""A node that lies: it passes every question on to a real one, and alters what comes back."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Alter = Callable[[str, list[Any], Any], Any]
"""(method, parameters, true result) -> what to answer; or ``Answer`` for a whole reply."""


class Answer(Exception):
    """Raised by an ``Alter``: the reply's status and body, whatever they are."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


@contextmanager
def lying(url: str, alter: Alter, path: str = "") -> Iterator[str]:
    """Serve the node at *url*, altered; give the liar's address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            question = json.loads(body)
            ask = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(ask, timeout=30) as answer:
                reply = json.load(answer)
            try:
                if "result" in reply:
                    method, parameters = question["method"], question["params"]
                    reply["result"] = alter(method, parameters, reply["result"])
                status, text = 200, json.dumps(reply).encode()
            except Answer as given:
                status, text = given.status, given.body
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{path}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
