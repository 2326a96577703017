"""The served log and its client; servers that are down, and servers that lie."""

from __future__ import annotations

import base64
import http.client
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.formats.tlog.entry import HashedRekord, request_v2
from nix_seed.logs import rekor
from nix_seed.logs.embedded import EmbeddedLog
from nix_seed.logs.rekor import LogHttp, RekorV2
from nix_seed.logs.rules.entry import EntryFate, logged_signature
from nix_seed.logs.server import LogServer
from support.certificates import make_certificate
from support.logs import IMPATIENT, Signing, served, served_client
from support.web import Reply, lying

ENTRIES = "/api/v2/log/entries"


def ask(
    url: str,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> Reply:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 0, timeout=20)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read()
    finally:
        connection.close()


def test_an_envelope_is_logged_over_http(tmp_path: Path) -> None:
    envelope, verifier = Signing().sign(b"payload")
    logged = logged_signature(envelope, verifier)
    with served_client(tmp_path / "log") as (client, log):
        entry = client.append(envelope, verifier)
        assert client.verify(entry, logged).proved
        assert log.verify(entry, logged).proved
        assert client.append(envelope, verifier)["canonicalizedBody"] == entry["canonicalizedBody"]
        log.append(*Signing().sign(b"more"))
        assert client.append(envelope, verifier)["logIndex"] == "0"
        assert client.checkpoint() == log.checkpoint()
        assert client.checkpoint().head.size == 2
        assert len(client.consistency(1, 2)) == 1
        assert [each["logIndex"] for each in client.lookup(logged.pae_digest)] == ["0"]


def test_many_clients_at_once(tmp_path: Path) -> None:
    with served_client(tmp_path / "log") as (client, log):
        failures: list[BaseException] = []

        def work() -> None:
            try:
                signing = Signing()
                for number in range(8):
                    client.append(*signing.sign(b"%d" % number))
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert log.checkpoint().head.size == 40


def test_the_files_are_served_and_nothing_else(tmp_path: Path) -> None:
    log = EmbeddedLog.create(tmp_path / "log")
    log.append_bodies([b"%d" % i for i in range(3)])
    with served(log) as server:
        for prefix in ("", "/api/v2"):
            status, headers, body = ask(server.url, "GET", f"{prefix}/checkpoint")
            assert (status, body) == (200, log.checkpoint().dump())
            assert headers["content-type"] == "text/plain; charset=utf-8"
            assert headers["cache-control"] == "no-cache"
            status, headers, body = ask(server.url, "GET", f"{prefix}/tile/entries/000.p/3")
            assert (status, headers["content-type"]) == (200, "application/octet-stream")
            assert "immutable" in headers["cache-control"]
        assert ask(server.url, "HEAD", "/checkpoint")[2] == b""
        for path in (
            "/", "/private/key.pem", "/../private/key.pem", "/tile/0/../../../private/key.pem",
            "/tile/0/000", "/tile/0/000.p/2", "/log.vkey", "/lock", "//checkpoint/x", "/tile",
            "/checkpoint?x=1", "/%2e%2e/private/key.pem",
        ):  # fmt: skip
            status, _, body = ask(server.url, "GET", path)
            assert (status, b"PRIVATE" in body) == (404, False), path
        assert ask(server.url, "PUT", "/checkpoint", b"x")[0] == 501


def good_request() -> dict[str, Any]:
    logged = Signing().logged(b"payload")
    value: dict[str, Any] = json.loads(request_v2(HashedRekord.of(logged)))
    return value


def of_no_version() -> str:
    """Return a certificate of an X.509 version that does not exist, as Rekor's JSON spells it."""
    der = make_certificate().replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020107"), 1)
    return base64.b64encode(der).decode()


def certified(verifier: dict[str, Any]) -> None:
    del verifier["publicKey"]
    verifier["x509Certificate"] = {"rawBytes": of_no_version()}


def broken(change: Callable[[dict[str, Any]], object]) -> bytes:
    value = good_request()
    change(value["hashedRekordRequestV002"])
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    ("request_body", "said"),
    [
        (b"", "is not valid JSON"),
        (b"[]", "an object is wanted, not list"),
        (b'{"dsseRequestV002":{}}', "there is no member 'dsseRequestV002'"),
        (broken(lambda r: r.pop("digest")), "digest must be a string"),
        (broken(lambda r: r.update(digest="AAAA")), "digest has 3 bytes, not 32"),
        (broken(lambda r: r.update(digest="A" * 43 + "=")), "the signature is not the verifier's"),
        (broken(lambda r: r.update(more=1)), "there is no member 'more'"),
        (broken(lambda r: r["signature"].update(content="AAAA")), "the signature is not the"),
        (
            broken(lambda r: r["signature"]["verifier"].update(keyDetails="PKIX_ED25519")),
            "only ECDSA on P-256 with SHA-256 can be verified by its hash",
        ),
        (
            broken(lambda r: r["signature"]["verifier"].update(publicKey={"rawBytes": "AAAA"})),
            "the verifier is neither a public key nor a certificate",
        ),
        (
            broken(lambda r: certified(r["signature"]["verifier"])),
            "the verifier is neither a public key nor a certificate",
        ),
    ],
)
def test_what_is_no_entry_is_refused(tmp_path: Path, request_body: bytes, said: str) -> None:
    log = EmbeddedLog.create(tmp_path / "log")
    with served(log) as server:
        status, _, body = ask(server.url, "POST", ENTRIES, request_body)
        error = json.loads(body)
        assert (status, error["code"]) == (400, 3)
        assert said in error["message"]
    assert log.checkpoint().head.size == 0


def test_requests_too_long_or_elsewhere(tmp_path: Path) -> None:
    with served(EmbeddedLog.create(tmp_path / "log")) as server:
        assert ask(server.url, "POST", ENTRIES, b"x" * 200_000)[0] == 413
        assert ask(server.url, "POST", "/api/v1/log/entries", b"{}")[0] == 404
        for length in ("x", "-1", "\u00b2", "1" * 5000):
            answer = ask(server.url, "POST", ENTRIES, headers={"Content-Length": length})
            assert answer[0] == 411, length


def test_ed25519_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    with served_client(tmp_path / "log") as (client, log):
        with pytest.raises(InputError, match=r"takes signatures by ECDSA on P-256 only$"):
            client.append(*Signing("ed25519").sign(b"payload"))
        assert log.checkpoint().head.size == 0


def test_a_taken_port(tmp_path: Path) -> None:
    log = EmbeddedLog.create(tmp_path / "log")
    with served(log) as server:
        port = urlsplit(server.url).port or 0
        with pytest.raises(CouldNotCheck, match=rf"^serving on 127.0.0.1, port {port}, failed: "):
            LogServer(log, port=port)


def client_of(log: EmbeddedLog, url: str) -> RekorV2:
    http = LogHttp(url, patience=IMPATIENT)
    return RekorV2(log.trusted, url, tiles=log.source, http=http)


@pytest.fixture
def log(tmp_path: Path) -> EmbeddedLog:
    return EmbeddedLog.create(tmp_path / "log", "log.test/x")


def test_a_409_of_another_entry_is_a_lie(log: EmbeddedLog) -> None:
    log.append(*Signing().sign(b"somebody else's"))
    envelope, verifier = Signing().sign(b"payload")
    with (
        lying(lambda *_: (409, {"x-log-index": "0"}, b"{}")) as url,
        pytest.raises(CheckedFalse) as caught,
    ):
        client_of(log, url).append(envelope, verifier)
    assert caught.value.message.endswith(
        "the log says that entry 0 is the one sent, but it is another"
    )


def test_a_409_that_says_nothing_is_no_success(
    log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rekor, "_TRIES", 2)
    monkeypatch.setattr(rekor, "_PAUSE", 0.01)
    for headers in ({}, {"x-log-index": "-1"}, {"x-log-index": "0x0"}):
        with (
            lying(lambda *_, h=headers: (409, h, b"{}")) as url,
            pytest.raises(CouldNotCheck, match=r"\(409\), does not say where, and it is not among"),
        ):
            client_of(log, url).append(*Signing().sign(b"payload"))


def test_the_entry_of_another_signature_is_a_lie(log: EmbeddedLog) -> None:
    other = json.dumps(log.append(*Signing().sign(b"another"))).encode()
    with lying(lambda *_: (201, {}, other)) as url, pytest.raises(CheckedFalse) as caught:
        client_of(log, url).append(*Signing().sign(b"payload"))
    assert caught.value.message == (
        "the log log.test/x answered falsely: the log entry is of another signature: "
        "its digest is of other signed bytes"
    )


def test_the_entry_of_another_log_is_a_lie(log: EmbeddedLog, tmp_path: Path) -> None:
    signing = Signing().sign(b"payload")
    elsewhere = EmbeddedLog.create(tmp_path / "elsewhere", "log.test/x").append(*signing)
    with (
        lying(lambda *_: (201, {}, json.dumps(elsewhere).encode())) as url,
        pytest.raises(CheckedFalse, match=r"answered falsely: .* is not signed by the log"),
    ):
        client_of(log, url).append(*signing)


def test_a_proof_too_long_is_a_lie(log: EmbeddedLog) -> None:
    signing = Signing().sign(b"payload")
    entry = log.append(*signing)
    entry["inclusionProof"]["hashes"] = ["A" * 43 + "="]
    assert log.verify(entry, logged_signature(*signing)).fate is EntryFate.FALSE_PROOF
    with (
        lying(lambda *_: (201, {}, json.dumps(entry).encode())) as url,
        pytest.raises(CheckedFalse, match=r"has hashes too many$"),
    ):
        client_of(log, url).append(*signing)


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        ((503, {}, b'{"message":"pushback"}'), CouldNotCheck, "answered 503: pushback$"),
        ((500, {}, b""), CouldNotCheck, "answered 500$"),
        ((404, {}, b"<html>"), CouldNotCheck, "answered 404$"),
        ((302, {"Location": "/x"}, b""), CouldNotCheck, "answered 302$"),
        (
            (400, {}, b'{"message":"no\\nthing\\u001b[2J"}'),
            InputError,
            "answered 400: no thing .2J",
        ),
        ((200, {}, b"<html>a captive portal"), CouldNotCheck, "the answer is not valid JSON"),
        ((200, {}, b"[]"), CouldNotCheck, "the answer is not a JSON object$"),
        (
            (200, {}, b'{"maintenance": true}'),
            CouldNotCheck,
            "^the log log.test/x gave no entry: the log entry",
        ),
    ],
)
def test_a_log_that_is_down_is_not_a_log_that_lies(
    log: EmbeddedLog, reply: Reply, kind: type[Exception], said: str
) -> None:
    with lying(lambda *_: reply) as url, pytest.raises(kind, match=said) as caught:
        client_of(log, url).append(*Signing().sign(b"payload"))
    assert type(caught.value) is not CheckedFalse


def test_no_server_at_all(log: EmbeddedLog) -> None:
    with lying(lambda *_: (200, {}, b"")) as url:
        pass
    with pytest.raises(CouldNotCheck, match=r"no connection could be made"):
        client_of(log, url).append(*Signing().sign(b"payload"))
    with pytest.raises(InputError, match=r"is not the address of a log"):
        LogHttp("log.test")


def test_an_answer_lost_on_the_way_is_found_again(log: EmbeddedLog) -> None:
    """The first answer is a 502 after the entry was logged; the second try meets the 409."""
    with served(log) as server:
        tries: list[int] = []

        class Losing(LogHttp):
            def _send(self, *args: Any) -> Any:
                reply = super()._send(*args)
                tries.append(reply.status)
                if len(tries) == 1:
                    from nix_seed.registry.errors import Unreachable

                    raise Unreachable("lost")
                return reply

        http = Losing(server.url, patience=IMPATIENT)
        envelope, verifier = Signing().sign(b"payload")
        entry = RekorV2(log.trusted, server.url, http=http).append(envelope, verifier)
        assert tries[:2] == [201, 409]
        assert set(tries[2:]) == {200}, "the entry's proof is read from its tiles"
        assert log.verify(entry, logged_signature(envelope, verifier)).proved
        assert log.checkpoint().head.size == 1
