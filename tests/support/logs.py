"""Envelopes to log, logs to serve, and logs that lie."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

from nix_seed.formats.intoto.statement import Envelope
from nix_seed.formats.tlog.entry import HashedRekord, LoggedSignature, Verifier
from nix_seed.logs.embedded import EmbeddedLog
from nix_seed.logs.rekor import LogHttp, RekorV2
from nix_seed.logs.rules.entry import logged_signature
from nix_seed.logs.server import LogServer
from nix_seed.registry.errors import Patience
from nix_seed.trust.sign import KeyKind, KeySigner

KIND = "application/vnd.in-toto+json"
IMPATIENT = Patience(attempts=2, base=0.01, connect=3.0, stall=20.0, settle=20.0)


class Signing:
    """A key that signs envelopes."""

    def __init__(self, kind: KeyKind = "ecdsa-p256") -> None:
        self.signer = KeySigner.generate(kind)

    def sign(self, payload: bytes) -> tuple[Envelope, Verifier]:
        signed = self.signer.sign(KIND, payload)
        return signed.envelope, signed.verifier

    def logged(self, payload: bytes) -> LoggedSignature:
        return logged_signature(*self.sign(payload))

    def body(self, payload: bytes) -> bytes:
        return HashedRekord.of(self.logged(payload)).dump()


def cheap_body(number: int) -> bytes:
    """A body whose signature nobody verifies, for logs that have to be long."""
    digest = hashlib.sha256(b"%d" % number).digest()
    return HashedRekord(digest, b"signature", Verifier(b"key")).dump()


@contextlib.contextmanager
def served(log: EmbeddedLog) -> Iterator[LogServer]:
    """Serve *log* on loopback."""
    server = LogServer(log)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


@contextlib.contextmanager
def served_client(directory: Path) -> Iterator[tuple[RekorV2, EmbeddedLog]]:
    """Serve a new log in *directory*, and a client of it."""
    log = EmbeddedLog.create(directory, "log.test/served")
    with served(log) as server:
        http = LogHttp(server.url, patience=IMPATIENT)
        yield RekorV2(log.trusted, server.url, http=http), log
