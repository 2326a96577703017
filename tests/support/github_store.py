"""GitHub's store of attestations on loopback, as its REST documentation describes it.

``POST /repos/{owner}/{repo}/attestations`` and ``GET …/attestations/{subject_digest}``. With a
certificate it is also a proxy that is each host one asks it for, ``api.github.com`` for `gh`.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

from support.registries import Certificate
from support.web import answering

TOKEN = "ghs_token-of-the-job"
DENIED = "Resource not accessible by integration"


@dataclass
class Store:
    """Running at *url*; *fails* are the statuses of its next answers, *seen* the writes."""

    url: str
    held: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    fails: list[tuple[int, str]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    def add(self, repository: str, bundle: dict[str, Any]) -> None:
        """Keep *bundle* under each subject of its statement."""
        statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
        for subject in statement["subject"]:
            name = f"{repository}/sha256:{subject['digest']['sha256']}"
            entry = {"bundle": bundle, "repository_id": 1, "initiator": "user"}
            self.held.setdefault(name, []).append(entry)


@contextmanager
def github_store(tls: Certificate | None = None) -> Iterator[Store]:
    """Serve an empty store on a free port; as a proxy, with *tls*, the certificate of all hosts."""
    with answering(_Handler) as server:
        store = Store(f"http://127.0.0.1:{server.server_address[1]}")
        server.store = store  # type: ignore[attr-defined]
        if tls is not None:
            store.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            store.tls.load_cert_chain(tls.certificate, tls.key)
        yield store


class _Handler(BaseHTTPRequestHandler):
    def do_CONNECT(self) -> None:
        store: Store = self.server.store  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()
        assert store.tls is not None
        with store.tls.wrap_socket(self.connection, server_side=True) as inside:
            _Handler(inside, self.client_address, self.server)

    def do_POST(self) -> None:
        store: Store = self.server.store  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        owner, name, kind = self._path()
        store.seen.append(f"{owner}/{name}")
        if store.fails:
            self._answer(*store.fails.pop(0))
        elif self.headers["Authorization"] != f"Bearer {TOKEN}":
            self._answer(403, DENIED)
        else:
            assert kind == "attestations"
            store.add(f"{owner}/{name}", json.loads(body)["bundle"])
            self._answer(201, {"id": len(store.seen)})

    def do_GET(self) -> None:
        store: Store = self.server.store  # type: ignore[attr-defined]
        owner, name, *rest = self._path()
        found = store.held.get(f"{owner}/{name}/{rest[-1]}")
        self._answer(*((200, {"attestations": found}) if found else (404, "Not Found")))

    def _path(self) -> list[str]:
        path = urlsplit(self.path).path.replace("%3A", ":")
        _, _, parts = path.partition("/repos/")
        return parts.split("/")

    def _answer(self, status: int, said: Any) -> None:
        body = json.dumps({"message": said} if isinstance(said, str) else said).encode()
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "7")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
