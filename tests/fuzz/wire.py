"""Clients whose servers answer with given bytes, whatever they are asked: HTTP, read from a socket.

Everything of the clients runs, and of the HTTP library all but making the connection.
"""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final
from unittest import mock

import urllib3

from nix_seed.core.digests import Digest
from nix_seed.core.errors import NixSeedError
from nix_seed.formats.oci.manifest import Descriptor
from nix_seed.logs.embedded import LogKey
from nix_seed.logs.open import trusted_by
from nix_seed.logs.rekor import HttpSource, LogHttp, RekorV1, RekorV2
from nix_seed.registry.credentials import Credential, Keyring
from nix_seed.registry.errors import Patience
from support.logs import Signing
from support.repositories import Registry

AT_ONCE: Final = Patience(attempts=2, stall=1, settle=1, connect=1, sleep=lambda _: None)
_US: Final = Keyring(given=Credential("the fuzzer", "user", "correct horse"))
_BLOB: Final = Descriptor("application/octet-stream", Digest("ab" * 32), 40)
_KEY: Final = LogKey.make("log.example").note_key
_TLS: Final = ssl.create_default_context()  # takes long to make
_SIGNED: Final = Signing().sign(b"{}")


@contextmanager
def answering(data: bytes) -> Iterator[None]:
    """Have every connection give *data* and end."""
    ends: list[socket.socket] = []

    def connect(_: Any) -> socket.socket:
        ours, theirs = socket.socketpair()
        theirs.sendall(data[: 1 << 16])
        theirs.shutdown(socket.SHUT_WR)
        ends.extend((ours, theirs))
        return ours

    def connect_tls(self: Any) -> None:
        self.sock, self.is_verified = connect(self), True

    plain, tls = urllib3.connection.HTTPConnection, urllib3.connection.HTTPSConnection
    with (
        mock.patch.object(plain, "_new_conn", connect),
        mock.patch.object(tls, "connect", connect_tls),
        mock.patch("nix_seed.registry.http._tls", return_value=_TLS),
    ):
        try:
            yield
        finally:
            for end in ends:
                end.close()


def _each(questions: list[Callable[[], object]]) -> None:
    """Ask all *questions*; an error of ours ends one, any other all."""
    for question in questions:
        with suppress(NixSeedError):
            question()


def ask_registry(data: bytes) -> None:
    """Ask a registry that answers *data* everything there is to ask."""
    with answering(data):
        host = Registry("127.0.0.1:1", keyring=_US, patience=AT_ONCE, plain_http=True)
        asked = host.repository("q/x", mount_from=("q/y",))
        _each(
            [
                lambda: asked.head_manifest("v1"),
                lambda: asked.get_manifest(Digest("ab" * 32)),
                asked.list_tags,
                lambda: asked.referrers(Digest("ab" * 32), "x"),
                lambda: list(asked.open_blob(_BLOB)),
                lambda: asked.read_range_unverified(_BLOB, 10, 20),
                lambda: asked.push_stream(lambda: [b"x"], "x"),
                lambda: asked.put_manifest(b"{}", "x", "v1"),
            ]
        )


def ask_logs(data: bytes) -> None:
    """Ask a log that answers *data*, Rekor v1 and v2, everything there is to ask."""
    with answering(data), mock.patch("time.sleep"):
        http, trusted = LogHttp("http://127.0.0.1:1/log", patience=AT_ONCE), trusted_by(_KEY)
        old = RekorV1(trusted, http.url, http=http)
        for log in (old, RekorV2(trusted, http.url, tiles=HttpSource(http), http=http)):
            _each(
                [
                    lambda log=log: log.append(*_SIGNED),  # type: ignore[misc]
                    lambda log=log: list(log.lookup(bytes(32))),  # type: ignore[misc]
                    log.checkpoint,
                    lambda log=log: log.consistency(1, 2),  # type: ignore[misc]
                ]
            )


def ask_node(data: bytes) -> None:
    """Ask an Ethereum node that answers *data*; nothing where the add-on is not installed."""
    try:
        from nix_seed.evm.node import EvmNode, shipped
    except ImportError:
        return
    address = "0x" + "11" * 20
    views = (each for each in shipped().abi if each.get("stateMutability") == "view")
    view = next(each["name"] for each in views if not each["inputs"])
    event = next(each["name"] for each in shipped().abi if each["type"] == "event")
    with answering(data):
        node = EvmNode.connect("http://127.0.0.1:1", AT_ONCE)
        _each(
            [
                node.chain_id,
                lambda: node.height(None),
                lambda: node.block(1),
                lambda: node.code(address, 1),
                lambda: node.read(address, view, at=1),
                lambda: node.logs(address, event, 1, 2),
                lambda: node.nonce(address),
                node.fees,
                lambda: node.estimate({"to": address, "from": address}),
                lambda: node.send(b"x"),
                lambda: node.receipt(bytes(32)),
            ]
        )


def http(status: bytes, body: bytes = b"", *headers: bytes) -> bytes:
    """An answer."""
    length = b"Content-Length: %d" % len(body)
    return b"\r\n".join((b"HTTP/1.1 " + status, length, *headers, b"", body))


ANSWERS: Final = (
    http(b"200 OK", b'{"schemaVersion":2}', b"Content-Type: application/json"),
    http(b"200 OK", b'{"name":"x","tags":["v1"]}', b'Link: </v2/x?n=1>; rel="next"'),
    http(b"200 OK", b"x" * 40, b"Docker-Content-Digest: sha256:" + b"ab" * 32),
    http(b"206 Partial Content", b"x" * 20, b"Content-Range: bytes 10-29/40"),
    http(b"307 Temporary Redirect", b"", b"Location: https://storage.example/x?y=z"),
    http(b"202 Accepted", b"", b"Location: /v2/q/x/blobs/uploads/1?state=2", b"Range: 0-0"),
    http(b"401 Unauthorized", b"", b'WWW-Authenticate: Bearer realm="https://x/t",service="x"'),
    http(
        b"401 Unauthorized", b'{"token":"x","expires_in":60}', b'WWW-Authenticate: Basic realm=""'
    ),
    http(b"429 Too Many Requests", b'{"errors":[{"code":"X"}]}', b"Retry-After: 3"),
    http(b"409 Conflict", b"{}", b"Location: /api/v1/log/entries/" + b"ab" * 32, b"X-Log-Index: 7"),
    http(b"200 OK", b'{"signedTreeHead":"log.example\\n2\\nAAAA\\n"}'),
    http(b"200 OK", b'{"hashes":["' + b"ab" * 32 + b'"]}'),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"HTTP/1.0 204 \r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" + http(b"201 Created"),
)

_BLOCK: Final = {
    "number": "0x1", "hash": "0x" + "ab" * 32, "parentHash": "0x" + "cd" * 32, "size": "0x1",
    "timestamp": "0x1", "baseFeePerGas": "0x7", "transactions": [], "gasUsed": "0x0",
}  # fmt: skip
_LOG: Final = {
    "address": "0x" + "11" * 20, "blockNumber": "0x1", "logIndex": "0x0", "topics": [],
    "transactionHash": "0x" + "ab" * 32, "data": "0x", "blockHash": "0x" + "ab" * 32,
}  # fmt: skip
_RESULTS: Final = ("0x1", _BLOCK, [_LOG], None, _LOG | {"status": "0x1", "gasUsed": "0x1"})
_FAULT: Final = {"code": 3, "message": "execution reverted", "data": "0x"}
_ENDS: Final[tuple[Mapping[str, object], ...]] = (
    *({"result": each} for each in _RESULTS),
    {"error": _FAULT},
)
RPC: Final = tuple(
    http(b"200 OK", json.dumps({"jsonrpc": "2.0", "id": 0, **each}).encode()) for each in _ENDS
)
