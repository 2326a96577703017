"""What anyone may put before an audit must not hide what it finds."""

from __future__ import annotations

import json
import random
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nix_seed.audit.monitor import Endurance, monitor
from nix_seed.formats.tlog.entry import DsseV001, HashedRekord, Verifier
from nix_seed.release.load import load_policy_of_then
from nix_seed.release.rules.signed_entries import Sieve
from nix_seed.trust.rules.signer import PublicKey
from support.audits import Ledger
from support.certificates import malformed_certificates

ISSUER = "https://issuer.example"
ENTRIES = 1000


def identified(ledger: Ledger) -> None:
    """Have the policy trust an identity, so that certificates in the log are read."""
    ledger.promoters["ines"] = {"issuer": f'"{ISSUER}"', "subject": '"https://x.example/a"'}


def second_root(ledger: Ledger) -> None:
    ledger.forge(2, images=[ledger.other, ledger.arm], previous=(ledger.digest(3),))


def hostile_entries(number: int) -> Iterator[bytes]:
    """Yield what a log may hold: certificates of nobody's, shapes of nothing, mere bytes."""
    made = random.Random(13)
    certificates = list(malformed_certificates().values())
    shapes: list[object] = [
        {"kind": "dsse", "apiVersion": "0.0.1", "spec": []},
        {"kind": "dsse", "apiVersion": "0.0.2", "spec": {"dsseV002": None}},
        {"kind": "dsse", "apiVersion": "0.0.1", "spec": {"signatures": [{"verifier": "\u00b2"}]}},
        {"kind": ["dsse"], "apiVersion": {}, "x509Certificate": 10**400},
    ]
    for index in range(number):
        match index % 4:
            case 0:
                der = certificates[index // 4 % len(certificates)]
                yield HashedRekord(index.to_bytes(32), b"none", Verifier(certificate=der)).dump()
            case 1:
                yield json.dumps(shapes[index // 4 % len(shapes)]).encode() + b" " * index
            case 2:
                yield b'"x509Certificate"' + made.randbytes(40)
            case _:
                yield b"[" * (5000 + index) + b'"dsse"'


ANSWERS = {
    "errors that are no objects": b'HTTP/1.1 404 X\r\nContent-Length: 16\r\n\r\n{"errors":["x"]}',
    "a Location that is no address": b"HTTP/1.1 302 X\r\nLocation: https://[x\r\n\r\n",
    "a length in other digits": b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\nxx",
    "a page": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
    "no HTTP": b"\x00\xff\r\n\r\n",
    "a Link to nowhere": b"HTTP/1.1 200 OK\r\nLink: <http://[x>; rel=next\r\n"
    b'Content-Length: 23\r\n\r\n{"name":"x","tags":[7]}',
}


@pytest.mark.parametrize(
    ("before", "after"),
    [(b"=", b""), (b"\n-----END", b"=A\n-----END"), (b"\n-----END", b"=\n-----END")],
)
def test_a_key_spelled_otherwise_is_found_by_every_python(
    ledger: Ledger, before: bytes, after: bytes
) -> None:
    """A log that kept Rekor v1's entries so would hide them from some auditors."""
    policy = load_policy_of_then(ledger.write_policy()).policy
    promoter = policy.promoters[0]
    assert isinstance(promoter.signer, PublicKey)
    pem = Verifier(promoter.signer.der).pem
    body = DsseV001(bytes(32), bytes(32), ((b"s", pem.replace(before, after)),))
    sieve = Sieve("log", [policy])
    sieve.look(0, body.dump(), bytes(32))
    assert [entry.promoter for entry in sieve.found] == [promoter.id]


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Serve *answer* to whatever is asked; give the address."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.wfile.write(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}/copy"
        server.shutdown()


def test_a_log_of_hostile_entries_and_a_hostile_copy_do_not_hide_an_alarm(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "world", releases=0)
    identified(ledger)
    for _ in range(3):
        ledger.release()
    second_root(ledger)
    ledger.log.append_bodies(list(hostile_entries(ENTRIES)))
    with answering(ANSWERS["errors that are no objects"]) as copy:
        found = ledger.audit("--from", ledger.repository, "--from", copy, "--plain-http")
    assert found.code == 1
    assert ("conflict", "alarm") in found.found("alarm")
    # Both together: what is false, and what could not be read.
    assert any(copy in each["subject"] for each in found.report["findings"])
    (log,) = found.report["logs"]
    assert log["read"] > ENTRIES


UNREADABLE = {
    "a server error": b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n",
    "no such repository": b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n",
    "no right to read": b"HTTP/1.1 403 X\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("answer", UNREADABLE.values(), ids=list(UNREADABLE))
def test_a_registry_that_shows_nothing_withholds_nothing_yet(answer: bytes, ledger: Ledger) -> None:
    """An outage, a wrong name and a missing right are no lie about a release."""
    with answering(answer) as copy:
        found = ledger.audit("--from", copy, "--plain-http", state=None)
        beside = ledger.audit("--from", copy, "--from", ledger.repository, "--plain-http")
    assert (found.code, found.found("alarm")) == (3, [])
    assert ("withheld", "could not check") in found.found()
    assert all("in what could not be read" in each for each in found.words("withheld")[:3])
    assert any(copy in each["subject"] for each in found.report["findings"])
    assert (beside.code, beside.found("alarm")) == (3, [])


def test_a_directory_without_a_layout_withholds_nothing(ledger: Ledger, tmp_path: Path) -> None:
    found = ledger.audit("--from", f"oci:{tmp_path}/none", state=None)
    assert (found.code, found.found("alarm")) == (3, [])
    assert any("there is no image layout" in each for each in found.words("unread"))


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=list(ANSWERS))
def test_a_hostile_copy_hides_nothing(answer: bytes, ledger: Ledger) -> None:
    second_root(ledger)
    with answering(answer) as copy:
        found = ledger.audit("--from", copy, "--from", ledger.repository, "--plain-http")
    assert found.code == 1
    assert ("conflict", "alarm") in found.found("alarm")
    assert any(copy in each["subject"] for each in found.report["findings"])


def test_what_a_library_raises_of_one_entry_hides_no_other(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    second_root(ledger)
    look = Sieve.look

    def fails(self: Sieve, index: int, body: bytes, leaf: bytes) -> None:
        if index == 0:
            raise IndexError("a library's own")
        look(self, index, body, leaf)

    monkeypatch.setattr(Sieve, "look", fails)
    found = ledger.audit()
    assert found.code == 1
    assert {("conflict", "alarm"), ("log", "could not check")} <= set(found.found())


def test_a_monitor_survives_an_audit_that_crashes() -> None:
    left, rounds, words = [1, 2], [], []

    def run() -> None:
        raise IndexError("a library's own")

    ended = monitor(
        run,  # type: ignore[arg-type]
        lambda: bool(left.pop()),
        lambda one: rounds.append(one.number),
        lambda finding: words.append(finding.reason),
        Endurance(patience=2),
    )
    assert (ended.exit_code, rounds, words) == (3, [1, 2], [])
