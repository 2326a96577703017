"""One HTTP request.

``Transport`` knows TLS, time limits, proxies and what plain HTTP is allowed for, and never asks
twice.

Every error of the HTTP library becomes ``Unreachable`` at this boundary, inside the iterator of a
streamed body as well.
"""

import errno
import io
import itertools
import os
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from typing import Any, ClassVar

import urllib3
from urllib3.util import Timeout

from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.core.values import dataclass
from nix_seed.core.version import __version__
from nix_seed.registry.errors import Patience, Unreachable
from nix_seed.registry.rules.http import Proxy, Url, is_loopback, number, parse_url, proxy_for

REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CHUNK = 1 << 18
_CONNECTIONS = 64
_ERROR_BODY = 1 << 16
_WORTH_READING = 1 << 14  # bytes; less than a new TLS connection costs
_SLOWEST = 1 << 10  # bytes a second; what moves more slowly would take days
_MOST_INTERIM = 20
_PIECE = 1 << 16  # bytes
_MOST_UNSENT = 1 << 17  # bytes that the system holds back
_IF_NOT_SENT = (
    [(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _MOST_UNSENT)]
    if hasattr(socket, "TCP_NOTSENT_LOWAT")
    else []
)


class NotTLS(Unreachable):
    """The server speaks, but not TLS."""


class NotTrusted(Unreachable):
    """The server speaks TLS, and its certificate was not accepted."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response whose body is still on the wire. ``url`` is where it came from."""

    status: int
    headers: Mapping[str, str]
    url: str
    raw: urllib3.BaseHTTPResponse

    def chunks(self, size: int = _CHUNK) -> Iterator[bytes]:
        """Yield the body as it was sent, in pieces of at most *size* bytes."""
        try:
            # Whatever has arrived is given out at once: what a stall follows is not lost.
            with _mapped(self.url):
                while data := self.raw.read1(size, decode_content=False):
                    yield data
        finally:
            self.close()

    def take(self, length: int) -> bytes:
        """Return the first *length* bytes as they were sent; fewer where the body ends.

        Half the work of ``chunks``, which come as small as TLS sends them.
        """
        try:
            with _mapped(self.url):
                return self.raw.read(length, decode_content=False)
        finally:
            self.close()

    @property
    def gzipped(self) -> bool:
        """Whether the body is labelled as compressed on its way."""
        encoding = self.headers.get("Content-Encoding", "").strip().lower()
        return encoding in ("gzip", "x-gzip")

    def decoded(self, size: int = _CHUNK) -> Iterator[bytes]:
        """Yield the body without a compression that nobody asked for, whatever its label says."""
        chunks = self.chunks(size)
        first = next(chunks, b"")
        chunks = itertools.chain((first,), chunks)
        if not self.gzipped or not first.startswith(b"\x1f\x8b"):
            yield from chunks
            return
        decoder = zlib.decompressobj(wbits=31)
        try:
            for chunk in chunks:
                yield decoder.decompress(chunk, size)
                while decoder.unconsumed_tail:
                    yield decoder.decompress(decoder.unconsumed_tail, size)
        except zlib.error as error:
            where = parse_url(self.url).shown
            raise Unreachable(f"{where}: its compression is damaged: {error}") from error

    def read(self, limit: int) -> bytes | None:
        """Return the whole body, or None once it proves longer than *limit* bytes."""
        if (number(self.headers.get("Content-Length")) or 0) > limit:
            self.close()
            return None
        parts, total = [], 0
        for chunk in self.decoded(min(_CHUNK, limit + 1)):
            total += len(chunk)
            if total > limit:
                return None
            parts.append(chunk)
        return b"".join(parts)

    def read_error(self) -> bytes:
        """Return what can be had of an error's body; never raises."""
        try:
            return self.read(_ERROR_BODY) or b""
        except CouldNotCheck:
            return b""

    def discard(self) -> None:
        """Drop the connection, whatever is still to come on it."""
        self.raw.close()

    def close(self) -> None:
        """Give the connection back if (nearly) all of the body was read, else drop it."""
        left = self.raw.length_remaining
        if left is not None and left <= _WORTH_READING:
            self.raw.drain_conn()
            self.raw.release_conn()
        else:
            self.raw.close()


class Transport:
    """Sends requests over HTTPS; over plain HTTP only to loopback and to *plain* (``host:port``).

    Thread-safe, and goes on working in a fork, which gets connections of its own. *environ* gives
    the proxy variables and the CA file (``SSL_CERT_FILE``, ``NIX_SSL_CERT_FILE``).
    """

    def __init__(
        self,
        patience: Patience,
        environ: Mapping[str, str],
        *,
        plain: frozenset[str] = frozenset(),
        ca_file: str | None = None,
    ) -> None:
        self._patience = patience
        self._plain = frozenset(parse_url(f"http://{host}").netloc for host in plain)
        self._environ = environ
        self._ca_file = (
            ca_file or environ.get("SSL_CERT_FILE") or environ.get("NIX_SSL_CERT_FILE") or None
        )
        if ca_file is not None:
            # Asked for now: a mistake in it is told before anything is done.
            _tls(ca_file)
        elif self._ca_file is not None:
            with _reading(self._ca_file), open(self._ca_file, "rb"):
                pass
        self._lock = threading.Lock()
        self._pools: dict[tuple[int, bool, Proxy | None], urllib3.PoolManager] = {}

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None = None,
        *,
        settle: bool = False,
    ) -> Answer:
        """Send one request and return once the answer's headers are here.

        Follows no redirect. *settle* waits for the longer of the two answer limits.
        """
        where = parse_url(url)
        self._check_allowed(where)
        limit = self._patience.settle if settle else self._patience.stall
        sent = {"User-Agent": f"nix-seed/{__version__}", "Accept-Encoding": "identity"}
        with _mapped(str(where)):
            raw = self._pool(where).request(
                method,
                str(where),
                headers=sent | dict(headers),
                body=body,
                timeout=Timeout(connect=self._patience.connect, read=limit),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        return Answer(raw.status, raw.headers, str(where), raw)

    def speaks_tls(self, url: str) -> bool:
        """Whether the server at *url* (``https://…``) speaks TLS, whoever it is.

        Nothing is sent to it: without authorities, which take long to load, none is accepted.
        """
        where = parse_url(url)
        nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            with _mapped(url), _open_pool(proxy_for(self._environ, where), nobody) as pool:
                limit = Timeout(connect=self._patience.connect, read=self._patience.stall)
                pool.request("GET", url, timeout=limit, retries=False, redirect=False)
        except NotTLS:
            return False
        except NotTrusted:
            pass
        return True

    def _check_allowed(self, url: Url) -> None:
        """Raise unless *url* is HTTPS, or plain HTTP to where that is allowed."""
        if url.scheme == "https" or is_loopback(url.host) or url.netloc in self._plain:
            return
        raise CouldNotCheck(
            f"refused to speak to {url.netloc} over plain HTTP",
            hint="plain HTTP is used for loopback addresses only, or with --plain-http",
        )

    def _pool(self, url: Url) -> urllib3.PoolManager:
        proxy = proxy_for(self._environ, url)
        # Plain HTTP to this machine needs no authorities.
        secure = url.scheme == "https" or proxy is not None
        with self._lock:
            key = os.getpid(), secure, proxy
            if key not in self._pools:
                self._pools[key] = _open_pool(proxy, _tls(self._ca_file) if secure else None)
            return self._pools[key]


def _open_pool(proxy: Proxy | None, context: ssl.SSLContext | None) -> urllib3.PoolManager:
    if proxy is None:
        pool = urllib3.PoolManager(maxsize=_CONNECTIONS, ssl_context=context)
    else:
        said = proxy.authorization
        pool = urllib3.ProxyManager(
            proxy.url,
            maxsize=_CONNECTIONS,
            ssl_context=context,
            proxy_headers={"Proxy-Authorization": said} if said else None,
        )
    pool.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
    return pool


class _Pace:
    """What goes over *sock* while it is waited for; ``TimeoutError`` where that is hardly anything.

    The socket's own limit is for each call: a peer that drips would never exceed it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._waited, self._moved = 0.0, 0

    def note(self, count: int, begun: float) -> None:
        """Count bytes that were waited for since *begun*, by the monotonic clock."""
        limit = self._sock.gettimeout()
        if not limit:
            return
        self._waited += time.monotonic() - begun
        self._moved += count
        if self._waited >= limit:
            if self._moved < limit * _SLOWEST:
                said = f"{self._moved} bytes in {self._waited:.0f} s"
                raise TimeoutError(errno.ETIMEDOUT, said)
            self._waited, self._moved = 0.0, 0


class _Arriving(io.RawIOBase):
    """The bytes of one answer from *sock*, whose pace counts from the first byte on."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw, self._pace = raw, _Pace(sock)
        self._begun = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        begun = time.monotonic()
        count = self._raw.readinto(buffer)
        if count and self._begun:
            self._pace.note(count, begun)
        self._begun = True
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(HTTPResponse):
    def __init__(self, sock: socket.socket, *how: Any, **more: Any) -> None:
        super().__init__(sock, *how, **more)
        self.fp = io.BufferedReader(_Arriving(self.fp.detach(), sock))
        self._interim = 0

    def _read_status(self) -> tuple[str, int, str]:
        """Pass over what comes before the answer (RFC 9110, 15.2): the library knows 100 alone."""
        version, status, reason = super()._read_status()  # type: ignore[misc]
        if 100 <= status < 200 and status != HTTPStatus.SWITCHING_PROTOCOLS:
            self._interim += 1
            if self._interim > _MOST_INTERIM:
                raise HTTPException(f"{self._interim} interim answers, and no other")
            status = HTTPStatus.CONTINUE
        return version, status, reason


class _Http(urllib3.connection.HTTPConnection):
    """Sends for as long as something is taken: ``sendall`` has one limit for all it is given."""

    response_class = _Response
    # The system must not take more than it can send within the limit: then it takes nothing more.
    default_socket_options: ClassVar = [
        *urllib3.connection.HTTPConnection.default_socket_options,
        *_IF_NOT_SENT,
    ]

    def send(self, data: Any) -> None:
        """Send bytes."""
        if self.sock is None:
            self.connect()
        sock = self.sock
        view, pace = memoryview(data), _Pace(sock)
        while view:
            begun = time.monotonic()
            # TLS has one limit for all that it is given at once, too.
            sent = sock.send(view[:_PIECE])
            pace.note(sent, begun)
            view = view[sent:]


class _Https(_Http, urllib3.connection.HTTPSConnection):
    pass


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Https


@cache
def _tls(file: str | None) -> ssl.SSLContext:
    """Load the authorities in *file*, or the system's, once.

    That takes longer than a request to a server nearby.
    """
    with _reading(file):
        return ssl.create_default_context(cafile=file)


@contextmanager
def _reading(file: str | None) -> Iterator[None]:
    try:
        yield
    except (OSError, ssl.SSLError) as error:
        raise InputError(
            f"the CA file {file} cannot be read: {error}",
            hint="mend or unset SSL_CERT_FILE / NIX_SSL_CERT_FILE, or name another CA file",
        ) from error


@contextmanager
def _mapped(url: str) -> Iterator[None]:
    try:
        yield
    except urllib3.exceptions.HTTPError as error:
        raise _unreachable(parse_url(url).shown, error) from error
    except (OSError, UnicodeError, HTTPException) as error:
        raise Unreachable(f"{parse_url(url).shown}: the connection failed: {error}") from error


def _unreachable(where: str, error: urllib3.exceptions.HTTPError) -> Unreachable:
    text = str(error)
    if isinstance(error, urllib3.exceptions.SSLError):
        if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER_FAILURE" in text:
            return NotTLS(f"{where} does not speak TLS", not_done=True)
        said = error.args[0] if error.args else error
        return NotTrusted(
            f"{where}: its certificate was not accepted: {getattr(said, 'verify_message', text)}",
            hint=_what_to_trust(getattr(said, "verify_code", 0)),
            not_done=True,
        )
    if isinstance(error, urllib3.exceptions.ProxyError):
        inner = error.original_error
        denied = "407" in str(inner)
        said = getattr(inner.__cause__, "strerror", None) or str(inner)
        return Unreachable(
            f"{where}: the proxy did not connect: {said}",
            hint="the proxy wants credentials: HTTPS_PROXY=http://user:password@host:port"
            if denied
            else "check HTTPS_PROXY, or exempt this host in NO_PROXY",
            not_done=True,
        )
    for kind, words, not_done in _FAILURES:
        if isinstance(error, kind):
            # The system's own words tell an unknown name from a server that is down.
            cause = getattr(error.__cause__, "strerror", None)
            said = f"{words}: {cause}" if cause else words
            return Unreachable(f"{where}: {said}", hint=_LATER, not_done=not_done)
    # The library's own words show two exceptions as Python writes them.
    inner = error.args[-1] if isinstance(error, urllib3.exceptions.ProtocolError) else error
    if isinstance(inner, TimeoutError):
        return Unreachable(f"{where}: it took too little of what was sent", hint=_LATER)
    said = getattr(inner, "strerror", None) or str(inner)
    return Unreachable(f"{where}: the connection failed: {said}", hint=_LATER)


def _what_to_trust(code: int) -> str:
    """Return what to do about a certificate refused for OpenSSL's reason *code*."""
    if code in _UNTIMELY:
        now = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        return f"this machine's clock says {now} UTC: set it, or have the certificate renewed"
    if code in _STRICT:
        return (
            "Python 3.13 and newer want this of a CA: have its certificate made anew, or run"
            " nix-seed with Python 3.12 until then"
        )
    return "if it is signed by your own CA, name that CA's file in SSL_CERT_FILE"


# X509_V_ERR_…: CERT_NOT_YET_VALID, CERT_HAS_EXPIRED; what X509_V_FLAG_X509_STRICT alone asks for.
_UNTIMELY, _STRICT = (9, 10), range(80, 94)
_FAILURES = (
    (urllib3.exceptions.NewConnectionError, "no connection could be made", True),
    (urllib3.exceptions.ConnectTimeoutError, "no connection within the time limit", True),
    (urllib3.exceptions.ReadTimeoutError, "too little arrived within the time limit", False),
    (urllib3.exceptions.IncompleteRead, "the connection was cut in the middle of a body", False),
)
_LATER = "check the name and the network, and try again"
