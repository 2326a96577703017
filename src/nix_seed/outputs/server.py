"""Nix's binary cache protocol over HTTP, for one machine: what ``OutputCache`` answers."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Final

from nix_seed.core.errors import NixSeedError, foreign
from nix_seed.outputs.cache import OutputCache
from nix_seed.outputs.rules.narinfo import asked_nar, asked_path, cache_info

PRIORITY: Final = 10
"""Before cache.nixos.org, whose is 40: that one does not have what the project builds."""

SERVED: Final = "/nix-seed-served.json"
"""Where it is told what was taken so far."""

_RUN: Final = re.compile(r"^/run-[0-9a-f]{16}(?=/)")
_HERE: Final = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)
_SECONDS: Final = 60  # that a connection may be idle
_CONNECTIONS: Final = 128
_TEXT, _BINARY = "text/plain", "application/octet-stream"


class CacheServer:
    """Serves *cache* on loopback at *port* (0: any), or at *listener*, a socket that listens.

    What *told* returns is served at ``SERVED``.
    """

    def __init__(
        self,
        cache: OutputCache,
        port: int = 0,
        listener: socket.socket | None = None,
        told: Callable[[], bytes] | None = None,
    ) -> None:
        self.cache, self.told = cache, told or bytes
        handler = type("Handler", (_Handler,), {"serving": self})
        with foreign(
            f"serving on port {port} failed",
            OSError,
            OverflowError,
            hint="choose another --port; 0 takes any that is free",
        ):
            self._server = _Server(("127.0.0.1", port), handler, listener)

    @property
    def url(self) -> str:
        """The address it serves at; below it, ``/run-`` and 16 hex digits lead here as well."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def run(self) -> None:
        """Serve until ``stop``."""
        threading.Thread(target=self.cache.warm_up, name="warm-up", daemon=True).start()
        self._server.serve_forever(poll_interval=0.1)

    def stop(self) -> None:
        """Stop serving; answers begun are not waited for."""
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def serving(server: CacheServer) -> Iterator[CacheServer]:
    """Serve in a thread until the block ends."""
    thread = threading.Thread(target=server.run, name="outputs", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[BaseHTTPRequestHandler],
        listener: socket.socket | None,
    ) -> None:
        super().__init__(address, handler, bind_and_activate=listener is None)
        self._free = threading.BoundedSemaphore(_CONNECTIONS)
        if listener is not None:
            self.socket.close()
            self.socket = listener
            self.server_address = listener.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection by a thread of its own, if there are not too many."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """See there."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _SECONDS
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    serving: ClassVar[CacheServer]

    def do_GET(self) -> None:
        """Answer one request of Nix's."""
        if {"Content-Length", "Transfer-Encoding"} & set(self.headers):
            self.close_connection = True  # what follows is no request
        if self.headers.defects:
            self.close_connection = True
            self._answer(400, _TEXT, b"a header of the request is malformed\n")
        elif not all(map(_HERE.fullmatch, self.headers.get_all("Host", ()))):
            # A web page whose name was made to lead here must not read what a project builds.
            self._answer(421, _TEXT, b"this cache is for its own machine: ask 127.0.0.1\n")
        else:
            self._answer_path(_RUN.sub("", self.path))

    do_HEAD = do_GET

    def _answer_path(self, path: str) -> None:
        cache, missed = self.serving.cache, (404, _TEXT, b"not kept\n")
        if path == "/nix-cache-info":
            self._answer(200, "text/x-nix-cache-info", cache_info(PRIORITY))
        elif path == SERVED:
            self._answer(200, "application/json", self.serving.told())
        elif (hash_part := asked_path(path)) is not None:
            text = cache.ready(hash_part) or cache.narinfo(hash_part)
            self._answer(*((200, "text/x-nix-narinfo", text) if text else missed))
        elif (asked := asked_nar(path)) is None:
            self._answer(404, _TEXT, b"there is no such file in a binary cache\n")
        elif self.command != "HEAD" and (blob := cache.ready_nar(*asked)) is not None:
            self._answer(200, _BINARY, blob)
        elif (size := cache.size_of(*asked)) is None:
            self._answer(*missed)
        else:
            self._head(200, _BINARY, size)
            if self.command != "HEAD":
                self._stream(cache.nar(*asked))

    def _stream(self, chunks: Iterator[bytes]) -> None:
        """Send *chunks*; where they are false or end early, the connection breaks off before."""
        try:
            for chunk in chunks:
                self.wfile.write(chunk)
            self.wfile.flush()
        except NixSeedError:
            # What is still in the buffer must not complete an answer that is false.
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def _answer(self, status: int, kind: str, data: bytes) -> None:
        self._head(status, kind, len(data))
        if self.command != "HEAD":
            self.wfile.write(data)

    def _head(self, status: int, kind: str, size: int) -> None:
        self.send_response(HTTPStatus(status))
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing by itself: the cache tells."""
