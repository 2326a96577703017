"""What Rekor v2 says it has already is found, though a proxy lost where."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from nix_seed.core.errors import CouldNotCheck
from nix_seed.logs import rekor
from nix_seed.logs.embedded import EmbeddedLog
from nix_seed.logs.rekor import LogHttp, RekorV2
from support.logs import IMPATIENT, Signing, cheap_body, served
from support.web import answering

WORDS = {
    "only in words": b'{"code":6,"message":"an equivalent entry already exists with index 300"}',
    "not at all": b"<html>conflict</html>",
}


@contextmanager
def losing(url: str, words: bytes) -> Iterator[str]:
    """A proxy before the log at *url* that loses the headers and words of a 409."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            self.pass_on(None)

        def do_POST(self) -> None:
            self.pass_on(self.rfile.read(int(self.headers["Content-Length"])))

        def pass_on(self, body: bytes | None) -> None:
            request = urllib.request.Request(url + self.path, body)
            if body is not None:
                request.add_header("Content-Type", "application/json")
            try:
                with urllib.request.urlopen(request) as answer:
                    status, data = answer.status, answer.read()
            except urllib.error.HTTPError as error:
                status, data = error.code, words if error.code == 409 else error.read()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    with answering(Handler) as server:
        yield f"http://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize("said", WORDS)
def test_a_duplicate_is_found_wherever_it_is_said_to_be(said: str, tmp_path: Path) -> None:
    log = EmbeddedLog.create(tmp_path, "log.test/served")
    log.append_bodies([cheap_body(number) for number in range(300)])
    with served(log) as server, losing(server.url, WORDS[said]) as front:
        client = RekorV2(log.trusted, front, http=LogHttp(front, patience=IMPATIENT))
        signed = Signing().sign(b"x")
        first = client.append(*signed)
        log.append_bodies([cheap_body(number) for number in range(300, 310)])
        again = client.append(*signed)
    assert json.dumps(again["canonicalizedBody"]) == json.dumps(first["canonicalizedBody"])
    assert again["logIndex"] == first["logIndex"] == "300"


def test_one_that_is_nowhere_could_not_be_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rekor, "_TRIES", 2)
    monkeypatch.setattr(rekor, "_PAUSE", 0.01)
    log = EmbeddedLog.create(tmp_path / "log", "log.test/served")
    other = EmbeddedLog.create(tmp_path / "other", "log.test/served")
    signed = Signing().sign(b"x")
    with served(log) as server, losing(server.url, WORDS["not at all"]) as front:
        http = LogHttp(front, patience=IMPATIENT)
        RekorV2(log.trusted, front, http=http).append(*signed)
        # The tree that is read is another one: what the server has is not in it.
        hidden = RekorV2(other.trusted, front, tiles=other.source, http=http)
        with pytest.raises(CouldNotCheck, match="does not say where, and it is not among"):
            hidden.append(*signed)
