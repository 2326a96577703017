"""Nix's binary cache protocol over HTTP, for one machine: what ``OutputCache`` answers.

One thread reads all requests, and answers what is ready at once. What has to be asked for, or is
large, other threads answer. A connection on which nothing is asked takes none of them.
"""

from __future__ import annotations

import re
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http import HTTPStatus
from queue import SimpleQueue
from typing import Final

from nix_seed.core.errors import NixSeedError, foreign
from nix_seed.outputs.cache import OutputCache
from nix_seed.outputs.rules.narinfo import asked_nar, asked_path, cache_info
from nix_seed.outputs.rules.request import LARGEST_HEAD, CacheRequest, read_request

PRIORITY: Final = 10
"""Before cache.nixos.org, whose is 40: that one does not have what the project builds."""

SERVED: Final = "/nix-seed-served.json"
"""Where it is told what was taken so far."""

_RUN: Final = re.compile(r"^/run-[0-9a-f]{16}(?=/)")
_SECONDS: Final = 60.0  # that a connection may be idle, or take for one request
_CONNECTIONS: Final = 200  # that wait; of more, the one that has waited longest is closed
_THREADS: Final = 128
_CHUNK: Final = 1 << 16
_TEXT, _NARINFO, _BINARY = "text/plain", "text/x-nix-narinfo", "application/octet-stream"
_NONE: Final = CacheRequest("", bodiless=False, last=True)
_REFUSED: Final = {421: b"this cache is for its own machine: ask 127.0.0.1\n"}


class _Client:
    """A connection, what was *read* of its next request, and *since* when that is waited for."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.read = bytearray()
        self.since = 0.0


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
        with foreign(
            f"serving on port {port} failed",
            OSError,
            OverflowError,
            hint="choose another --port; 0 takes any that is free",
        ):
            self._listener = listener or socket.create_server(("127.0.0.1", port), backlog=128)
        self._selector = selectors.DefaultSelector()
        self._waiting: dict[_Client, None] = {}  # the one that has waited longest first
        self._woken, self._wake = socket.socketpair()
        self._wake.setblocking(False)
        self._answered: deque[tuple[_Client, bool]] = deque()
        self._jobs: SimpleQueue[tuple[_Client, Callable[[], None], bool] | None] = SimpleQueue()
        self._threads, self._free = 0, threading.Semaphore(0)
        self._ended = False

    @property
    def url(self) -> str:
        """The address it serves at; below it, ``/run-`` and 16 hex digits lead here as well."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def run(self) -> None:
        """Serve until ``stop``."""
        threading.Thread(target=self.cache.warm_up, name="warm-up", daemon=True).start()
        actions = {self._listener: self._accept, self._woken: self._take_back}
        for each in actions:
            each.setblocking(False)
            self._selector.register(each, selectors.EVENT_READ)
        try:
            while not self._ended:
                for key, _ in self._selector.select(1.0):
                    if isinstance(key.data, _Client):
                        self._read(key.data)
                    else:
                        actions[key.fileobj]()  # type: ignore[index]
                late = time.monotonic() - _SECONDS
                while self._waiting and next(iter(self._waiting)).since < late:
                    self._close(next(iter(self._waiting)))
        finally:
            for client in [*self._waiting]:
                self._close(client)
            for end in (self._listener, self._woken, self._wake):
                end.close()
            self._selector.close()
            for _ in range(self._threads):
                self._jobs.put(None)

    def stop(self) -> None:
        """Stop serving; answers begun are not waited for."""
        self._ended = True
        self._rouse()

    def _rouse(self) -> None:
        with suppress(OSError):  # it is awake, or has ended
            self._wake.send(b"\0")

    def _accept(self) -> None:
        try:
            while True:
                connection, _ = self._listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._wait_for(_Client(connection))
        except BlockingIOError:
            pass
        except OSError:
            # Too many files are open, say: whoever waits longest makes room.
            if self._waiting:
                self._close(next(iter(self._waiting)))
            else:
                time.sleep(0.05)

    def _wait_for(self, client: _Client) -> None:
        client.connection.setblocking(False)
        client.since = time.monotonic()
        self._waiting[client] = None
        self._selector.register(client.connection, selectors.EVENT_READ, client)
        if len(self._waiting) > _CONNECTIONS:
            self._close(next(iter(self._waiting)))

    def _leave(self, client: _Client) -> None:
        del self._waiting[client]
        self._selector.unregister(client.connection)

    def _close(self, client: _Client) -> None:
        if client in self._waiting:
            self._leave(client)
        client.connection.close()

    def _read(self, client: _Client) -> None:
        if client not in self._waiting:  # it was closed meanwhile
            return
        try:
            data = client.connection.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(client)
            return
        client.read += data
        self._answer(client)

    def _answer(self, client: _Client) -> None:
        """Answer what *client* has asked for, or let others do so."""
        while client in self._waiting:
            head, end, rest = client.read.partition(b"\r\n\r\n")
            if not end and len(head) <= LARGEST_HEAD:
                return
            client.read, request = rest, read_request(bytes(head))
            if isinstance(request, int):
                text = _REFUSED.get(request, f"{HTTPStatus(request).phrase}\n".encode())
                self._send(client, _whole(request, _TEXT, text, _NONE), last=True)
            elif (whole := self._ready(request)) is not None:
                self._send(client, whole, request.last)
            else:
                self._give_away(client, partial(self._look_for, client, request), request.last)

    def _send(self, client: _Client, whole: bytes, last: bool) -> None:
        """Send what is ready; who is slow to read it is waited for elsewhere."""
        try:
            sent = client.connection.send(whole)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(client)
            return
        if sent < len(whole):
            rest = partial(client.connection.sendall, memoryview(whole)[sent:])
            self._give_away(client, rest, last)
        elif last:
            self._close(client)
        else:
            client.since = time.monotonic()
            self._waiting[client] = self._waiting.pop(client)  # as the last

    def _ready(self, request: CacheRequest) -> bytes | None:
        """Return the answer that needs nothing to be asked for; None where there is none yet."""
        path = _RUN.sub("", request.path)
        if path == "/nix-cache-info":
            return _whole(200, "text/x-nix-cache-info", cache_info(PRIORITY), request)
        if path == SERVED:
            return _whole(200, "application/json", self.told(), request)
        if (hash_part := asked_path(path)) is not None:
            text = self.cache.ready(hash_part)
            return None if text is None else _whole(200, _NARINFO, text, request)
        if (asked := asked_nar(path)) is not None:
            blob = None if request.bodiless else self.cache.ready_nar(*asked)
            return None if blob is None else _whole(200, _BINARY, blob, request)
        return _whole(404, _TEXT, b"there is no such file in a binary cache\n", request)

    def _look_for(self, client: _Client, request: CacheRequest) -> None:
        """Answer a request for a narinfo or a NAR, however long that takes."""
        path, missed = _RUN.sub("", request.path), b"not kept\n"
        if (hash_part := asked_path(path)) is not None:
            text = self.cache.narinfo(hash_part)
            answer = (404, _TEXT, missed) if text is None else (200, _NARINFO, text)
            client.connection.sendall(_whole(*answer, request))
        elif (asked := asked_nar(path)) is not None:
            size = self.cache.size_of(*asked)
            if size is None:
                client.connection.sendall(_whole(404, _TEXT, missed, request))
                return
            head = _head(200, _BINARY, size, request)
            if request.bodiless:
                client.connection.sendall(head)
                return
            for chunk in self.cache.nar(*asked):
                client.connection.sendall(head + chunk if head else chunk)
                head = b""

    def _give_away(self, client: _Client, work: Callable[[], None], last: bool) -> None:
        self._leave(client)
        client.connection.settimeout(_SECONDS)
        self._jobs.put((client, work, last))
        if not self._free.acquire(blocking=False) and self._threads < _THREADS:
            self._threads += 1
            # Whoever stops the server waits for none of these.
            threading.Thread(target=self._work, name="answer", daemon=True).start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            client, work, last = job
            done = False
            try:
                # The client went away, or what it asked for is false, which is told: then the
                # connection breaks off before its answer is whole.
                with suppress(NixSeedError, OSError):
                    work()
                    done = True
            except BaseException:
                self._threads -= 1  # this one ends
                raise
            finally:
                self._answered.append((client, last or not done))
                self._rouse()
            self._free.release()

    def _take_back(self) -> None:
        with suppress(BlockingIOError):
            self._woken.recv(_CHUNK)
        while self._answered:
            client, last = self._answered.popleft()
            if last:
                client.connection.close()
            else:
                self._wait_for(client)
                self._answer(client)


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


def _head(status: int, kind: str, size: int, request: CacheRequest) -> bytes:
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        f"Content-Type: {kind}",
        f"Content-Length: {size}",
        *(["Connection: close"] if request.last else []),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _whole(status: int, kind: str, data: bytes, request: CacheRequest) -> bytes:
    return _head(status, kind, len(data), request) + (b"" if request.bodiless else data)
