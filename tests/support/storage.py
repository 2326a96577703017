"""A registry that sends to storage for its one blob, both as awkward as real ones are.

Tokens and addresses of storage are good for some requests. What else happens is up to the test.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from support.web import PlainHandler, answering

Part = tuple[int, int]
"""The first byte that is asked for, and the one after the last."""


@dataclass
class Storage:
    """What is served, how, and what was *asked*: the registry, its tokens or the storage.

    ``odd`` is asked at each request for a part, by its number, and says whether it has answered.
    """

    blob: bytes
    odd: Callable[[Request, int, Part], bool] = lambda _request, _number, _part: False
    token_uses: int | None = None
    address_uses: int | None = None
    refused: int = 403
    redirects: bool = True
    registry: str = ""
    storage: str = ""
    asked: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    _uses: dict[str, int] = field(default_factory=dict)
    _starts: set[int] = field(default_factory=set)

    def first(self, start: int) -> int:
        """Return how many parts were asked for with this one, 0 if one at *start* was before."""
        with self.lock:
            if start in self._starts:
                return 0
            self._starts.add(start)
            return len(self._starts)

    def allow(self, name: str, most: int | None) -> bool:
        """Use what is called *name* once more, unless that was done *most* times."""
        with self.lock:
            self._uses[name] = self._uses.get(name, 0) + 1
            return most is None or self._uses[name] <= most

    def note(self, name: str) -> int:
        """Note a request; return which of its kind it is, from 1."""
        with self.lock:
            self.asked.append(name)
            return self.asked.count(name)


class Request(PlainHandler):
    """A request to either; tests answer it by ``say`` and its neighbours."""

    storage: Storage

    def say(self, status: int, body: bytes = b"", **headers: str) -> bool:
        """Answer whole; a body has its length unless *headers* say another."""
        self.send_response(status)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in ({"Content-Length": str(len(body))} | named).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        return True

    def give(self, part: Part) -> bool:
        """Answer as is right."""
        start, end = part
        about = f"bytes {start}-{end - 1}/{len(self.storage.blob)}"
        return self.say(206, self.storage.blob[start:end], Content_Range=about)

    def cut(self, part: Part, length: int) -> bool:
        """Give the first *length* bytes, and then no more."""
        start, end = part
        about = f"bytes {start}-{end - 1}/{len(self.storage.blob)}"
        body = self.storage.blob[start : start + length]
        self.say(206, body, Content_Range=about, Content_Length=str(end - start))
        self.connection.shutdown(socket.SHUT_RDWR)
        return True

    def reset(self) -> bool:
        """End the connection as a machine does that knows nothing of it."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.wfile.close()
        self.connection.close()
        raise ConnectionResetError

    def stall(self) -> bool:
        """Say nothing until the test ends."""
        self.storage.ended.wait(60)
        return self.reset()

    def drip(self, part: Part) -> bool:
        """Answer as is right, a byte at a time, so that no limit between two bytes is exceeded."""
        start, end = part
        about = f"bytes {start}-{end - 1}/{len(self.storage.blob)}"
        self.say(206, Content_Range=about, Content_Length=str(end - start))
        for byte in self.storage.blob[start:end]:
            self.wfile.write(bytes((byte,)))
            if self.storage.ended.wait(0.1):
                break
        return self.reset()

    def do_HEAD(self) -> None:
        self.say(403)

    def do_GET(self) -> None:
        self.storage.note("all")
        place = self.path.partition("?")[0]
        answer = {"/token": self._token, "/data": self._data}.get(place, self._registry)
        answer()

    def _token(self) -> None:
        text = json.dumps({"token": f"token-{self.storage.note('token')}", "expires_in": 300})
        self.say(200, text.encode())

    def _registry(self) -> None:
        storage, said = self.storage, self.headers.get("Authorization", "")
        if storage.token_uses is not None and not (
            said.startswith("Bearer token-") and storage.allow(said, storage.token_uses)
        ):
            door = f'Bearer realm="http://{storage.registry}/token",service="x"'
            self.say(401, WWW_Authenticate=door)
            return
        number = storage.note("registry")
        if storage.redirects:
            self.say(307, Location=f"http://{storage.storage}/data?signature={number}")
        else:
            self._part()

    def _data(self) -> None:
        assert "Authorization" not in self.headers, "credentials went to another host"
        if self.storage.allow(self.path, self.storage.address_uses):
            self._part()
        else:
            self.say(self.storage.refused, b"<Error><Code>AccessDenied</Code></Error>")

    def _part(self) -> None:
        wanted = re.fullmatch(r"bytes=([0-9]+)-([0-9]+)", self.headers.get("Range", ""))
        if wanted is None:
            self.say(200, self.storage.blob)
            return
        part = int(wanted[1]), int(wanted[2]) + 1
        if not self.storage.odd(self, self.storage.note("part"), part):
            self.give(part)


@contextmanager
def serving(storage: Storage) -> Iterator[Storage]:
    """Serve *storage*: the registry at one port of loopback, what it sends to at another."""

    class Handler(Request):
        pass

    Handler.storage = storage
    with answering(Handler) as one, answering(Handler) as other:
        storage.registry, storage.storage = (f"127.0.0.1:{e.server_port}" for e in (one, other))
        try:
            yield storage
        finally:
            storage.ended.set()
