"""A proxy in front of a real registry that does, on request, what bad networks and servers do."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler

from nix_seed.registry.credentials import Credential, Keyring
from support.registries import PASSWORD, USER, Certificate
from support.web import answering

US = Keyring(given=Credential("the test", USER, PASSWORD))
DATA = bytes(range(256)) * 8000
"""A layer's bytes, where any will do."""
BLOBS = r"/blobs/sha256:"

_HOP = {"connection", "transfer-encoding", "keep-alive"}


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it came in; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    received: int
    peer: tuple[str, int] = ("", 0)


@dataclass(frozen=True, slots=True)
class Fault:
    """What to do to the requests it matches, ``times`` times (None: always), after ``skip`` ones.

    *status* answers without asking the registry. *cut*, *stall* and *flip* are positions in the
    response body; *truncate* shortens it, and its Content-Length with it. *cut_request* closes the
    connection once that many bytes of the request's body are here; *take* then goes on reading that
    many bytes a second. *edit* changes the headers.
    *ranged* matches only requests for a part.
    """

    method: str
    path: str
    times: int | None = 1
    skip: int = 0
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    cut: int | None = None
    stall: int | None = None
    flip: int | None = None
    truncate: int | None = None
    ignore_range: bool = False
    ranged: bool = False
    cut_request: int | None = None
    take: int | None = None
    edit: Callable[[dict[str, str]], None] | None = None


@dataclass(slots=True)
class Proxy:
    """The running proxy: *host* to speak to, *faults* to add to, *seen* to look at."""

    host: str
    upstream: str
    faults: list[Fault] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    forwarded_proto: bool = True
    released: threading.Event = field(default_factory=threading.Event)
    _used: dict[int, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, method: str, path: str, *, ranged: bool) -> Fault | None:
        with self._lock:
            for number, fault in enumerate(self.faults):
                if fault.method != method or not re.search(fault.path, path):
                    continue
                if fault.ranged and not ranged:
                    continue
                used = self._used.get(number, 0)
                self._used[number] = used + 1
                if used >= fault.skip and (fault.times is None or used < fault.skip + fault.times):
                    return fault
            return None

    def set(self, *faults: Fault) -> None:
        """Replace all faults by these, none of them used yet."""
        with self._lock:
            self.faults[:] = faults
            self._used.clear()

    def paths(self, method: str) -> list[str]:
        return [seen.path for seen in self.seen if seen.method == method]


@contextmanager
def fault_proxy(upstream: str, tls: Certificate | None = None) -> Iterator[Proxy]:
    """Run a proxy to *upstream* (``host:port``, plain HTTP) on a port of its own."""
    context = None
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)
    with answering(_Handler, context) as server:
        proxy = Proxy(f"127.0.0.1:{server.server_port}", upstream)
        server.proxy = proxy  # type: ignore[attr-defined]
        try:
            yield proxy
        finally:
            proxy.released.set()


class _Cut(Exception):
    pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (_Cut, OSError):
            self.close_connection = True
            self.drop()

    def handle(self) -> None:
        # A TLS greeting is no HTTP request: end it as a plain server does.
        plain = not isinstance(self.connection, ssl.SSLSocket)
        if plain and self.connection.recv(1, socket.MSG_PEEK) == b"\x16":
            self.connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            return
        super().handle()

    def drop(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def forward(self) -> None:
        proxy: Proxy = self.server.proxy  # type: ignore[attr-defined]
        fault = proxy.take(self.command, self.path, ranged="Range" in self.headers)
        body = self.body(fault)
        headers = {name.lower(): value for name, value in self.headers.items()}
        proxy.seen.append(
            Seen(self.command, self.path, dict(headers), len(body), self.client_address)
        )
        if fault is not None and fault.cut_request is not None:
            raise _Cut
        if fault is not None and fault.status is not None:
            self.answer(fault.status, dict(fault.headers), fault.body)
            return
        if fault is not None and fault.ignore_range:
            headers.pop("range", None)
        for name in _HOP:
            headers.pop(name, None)
        if isinstance(self.connection, ssl.SSLSocket) and proxy.forwarded_proto:
            headers["x-forwarded-proto"] = "https"
        if body:
            headers["content-length"] = str(len(body))
        upstream = HTTPConnection(proxy.upstream, timeout=30)
        try:
            upstream.request(self.command, self.path, body or None, headers)
            self.relay(upstream.getresponse(), fault, proxy)
        finally:
            upstream.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = forward

    def body(self, fault: Fault | None) -> bytes:
        if fault is not None and fault.take is not None:
            self.dawdle(fault.take)
        most = None if fault is None else fault.cut_request
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
                if most is not None and sum(map(len, parts)) >= most:
                    raise _Cut
            self.rfile.readline()
            return b"".join(parts)
        length = int(self.headers.get("Content-Length") or 0)
        return self.rfile.read(length if most is None else min(most, length))

    def dawdle(self, rate: int) -> None:
        """Take *rate* bytes of a request each second, for as long as anybody sends them."""
        proxy: Proxy = self.server.proxy  # type: ignore[attr-defined]
        while not proxy.released.wait(1):
            if rate and not self.rfile.read1(rate):
                break
        raise _Cut

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers and "Transfer-Encoding" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def relay(self, response: HTTPResponse, fault: Fault | None, proxy: Proxy) -> None:
        body = response.read()
        headers = {k: v for k, v in response.getheaders() if k.lower() not in _HOP}
        if fault is not None and fault.truncate is not None:
            body = body[: fault.truncate]
            headers["Content-Length"] = str(len(body))
        if fault is not None and fault.flip is not None:
            body = body[: fault.flip] + bytes([body[fault.flip] ^ 1]) + body[fault.flip + 1 :]
        if fault is not None and fault.edit is not None:
            fault.edit(headers)
        if self.command != "HEAD" and "Content-Length" not in headers:
            headers["Content-Length"] = str(len(body))
        self.send_response(response.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.write(body, fault, proxy)

    def write(self, body: bytes, fault: Fault | None, proxy: Proxy) -> None:
        if fault is not None and fault.cut is not None:
            self.wfile.write(body[: fault.cut])
            self.wfile.flush()
            raise _Cut
        if fault is not None and fault.stall is not None:
            self.wfile.write(body[: fault.stall])
            self.wfile.flush()
            proxy.released.wait(30)
            raise _Cut
        self.wfile.write(body)
