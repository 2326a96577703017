"""Worlds that log to a real Rekor, and Rekor v2 as its operators serve it."""

from __future__ import annotations

import http.server
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nix_seed.formats.tlog.note import NoteKey
from nix_seed.logs.open import open_log
from nix_seed.logs.rules.entry import TrustedLog
from support.releases import ReleaseWorld
from support.web import answering

__all__ = ["logged_by", "published"]


def logged_by(world: ReleaseWorld, kind: str, origin: str, key: NoteKey, url: str) -> None:
    """Have *world* log to the real log at *url*, instead of to its own."""
    world.logs = [
        {
            "id": '"rekor"',
            "kind": f'"{kind}"',
            "origin": f'"{origin}"',
            "key": f'"{key}"',
            "url": f'"{url}"',
        }
    ]
    world.log = open_log(TrustedLog("rekor", kind, origin, key), url)  # type: ignore[arg-type, assignment]


@contextmanager
def published(url: str, storage: Path) -> Iterator[str]:
    """Serve the log at *url* together with its files, as its operators do with a front end."""

    class Front(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = storage / self.path.removeprefix("/api/v2/")
            if path.is_file():
                self._answer(200, path.read_bytes(), "application/octet-stream")
            else:
                self._pass(None)

        def do_POST(self) -> None:
            self._pass(self.rfile.read(int(self.headers["Content-Length"])))

        def _pass(self, body: bytes | None) -> None:
            kind = {"Content-Type": "application/json"}
            request = urllib.request.Request(url + self.path, body, kind)
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    self._answer(answer.status, answer.read(), answer.headers["Content-Type"])
            except urllib.error.HTTPError as error:
                self._answer(error.code, error.read(), "application/json")

        def _answer(self, code: int, body: bytes, kind: str) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with answering(Front) as server:
        yield f"http://127.0.0.1:{server.server_address[1]}"
