"""A token server (Docker's token authentication) whose tokens a real registry accepts."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.registries import PASSWORD, USER, Tokens, needs
from support.web import answering

REFRESH_TOKEN = "the refresh token"
READER, READERS_PASSWORD = "reader", "look, do not touch"
_LEEWAY = 60  # seconds past its end that docker-registry still accepts a token


@dataclass(slots=True)
class TokenServer:
    """Running; *life* is how many seconds the registry accepts the next tokens.

    *told* is the ``expires_in`` that clients are told, which may be a lie. *storage* is where the
    registry keeps repositories: of one that is not there, to pull alone is granted to nobody.
    *ends* is when the registry stops to accept the last token, as ``time.time`` tells it.
    """

    trust: Tokens
    key: Path
    life: float = 300
    told: int = 300
    anonymous: tuple[str, ...] = ()
    asked: list[dict[str, list[str]]] = field(default_factory=list)
    fail: list[int] = field(default_factory=list)
    storage: Path | None = None
    ends: float = 0


@contextmanager
def token_server(root: Path) -> Iterator[TokenServer]:
    openssl = needs("openssl", "openssl")
    root.mkdir(parents=True, exist_ok=True)
    key, certificate = root / "token.key", root / "token.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key),
         "-out", str(certificate), "-days", "2", "-subj", "/CN=token"],
        check=True, capture_output=True,
    )  # fmt: skip
    with answering(_Handler) as server:
        trust = Tokens(f"http://127.0.0.1:{server.server_port}/token", certificate)
        running = TokenServer(trust, key)
        server.tokens = running  # type: ignore[attr-defined]
        yield running


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        given = self.headers.get("Authorization")
        reader = given == _basic(READER, READERS_PASSWORD)
        self.give(query, known=given == _basic(USER, PASSWORD), reader=reader)

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        form["scope"] = form["scope"][0].split()
        self.give(form, known=form.get("refresh_token") == [REFRESH_TOKEN])

    def give(self, query: dict[str, list[str]], *, known: bool, reader: bool = False) -> None:
        server: TokenServer = self.server.tokens  # type: ignore[attr-defined]
        server.asked.append(query)
        if server.fail:
            self.say(server.fail.pop(0), {"errors": [{"code": "TOOBUSY", "message": "later"}]})
            return
        stranger = not known and not reader
        if stranger and (self.headers.get("Authorization") or not server.anonymous):
            error = {"code": "UNAUTHORIZED", "message": "who are you?"}
            self.say(401, {"errors": [error]})
            return
        access = []
        for scope in query["scope"]:
            kind, name, actions = scope.split(":")
            allowed = actions.split(",")
            if not known:
                few = ("pull",) if reader else server.anonymous
                allowed = [action for action in allowed if action in few]
            if server.storage and not (server.storage / name / "_manifests").exists():
                allowed = allowed if "push" in allowed else []
            access.append({"type": kind, "name": name, "actions": allowed})
        self.say(200, {"token": _sign(server, access), "expires_in": server.told})

    def say(self, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _sign(server: TokenServer, access: list[dict[str, Any]]) -> str:
    now = time.time()
    end = int(now + server.life)
    server.ends = end
    pem = server.trust.certificate.read_text()
    der = "".join(line for line in pem.splitlines() if "-----" not in line)
    claims = {
        "iss": "test-issuer",
        "sub": USER,
        "aud": "test-registry",
        "exp": end - _LEEWAY,
        "nbf": int(now - 3600),
        "iat": int(now - 3600),
        "jti": str(time.monotonic_ns()),
        "access": access,
    }
    parts = [_part({"typ": "JWT", "alg": "RS256", "x5c": [der]}), _part(claims)]
    signed = subprocess.run(
        ["openssl", "dgst", "-sha256", "-sign", str(server.key)],
        input=".".join(parts).encode(),
        check=True,
        capture_output=True,
    )
    return ".".join([*parts, _base64(signed.stdout)])


def _part(value: dict[str, Any]) -> str:
    return _base64(json.dumps(value).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
