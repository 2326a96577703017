"""The HTTP of the cache: odd requests, other names, many clients at once, some of which go away."""

from __future__ import annotations

import random
import re
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from nix_seed.outputs.open import fresh_key, settings_for
from nix_seed.outputs.rules.statement import OutputFact
from nix_seed.outputs.server import CacheServer, serving
from support.nars import NarFile, dump, nar_hash
from support.output_scene import HASH, PATH, Scene

TREE = NarFile(random.Random(1).randbytes(6 << 20))
GOOD = f"/{HASH}.narinfo"


@pytest.fixture
def served(scene: Scene) -> Iterator[tuple[str, int]]:
    """A server of one output of 6 MB that does not compress."""
    digest, size = nar_hash(TREE)
    fact = OutputFact(PATH, digest, size, ())
    import zstandard

    scene.keep(fact, scene.blob(zstandard.compress(b"".join(dump(TREE)))))
    with serving(CacheServer(scene.cache())) as server:
        place = urlsplit(server.url)
        assert place.hostname is not None
        assert place.port is not None
        yield place.hostname, place.port


def ask(place: tuple[str, int], request: bytes) -> bytes:
    """Send *request* as it is, and return all that comes before the connection ends."""
    with socket.create_connection(place, timeout=10) as client:
        client.sendall(request)
        with suppress(OSError):  # it may have answered already, and gone
            client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


def get(path: str, *headers: str, method: str = "GET", body: str = "") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Connection: close", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get(GOOD, "Host: 127.0.0.1:7090"), 200),
        (get(GOOD, "Host: LocalHost"), 200),
        (get(GOOD, "Range: bytes=5-9"), 200),
        (get(GOOD, method="HEAD"), 200),
        (get(GOOD, "Host: rebound.example:7090"), 421),
        (get("/nix-seed-served.json", "Host: 127.0.0.1.rebound.example"), 421),
        (get(GOOD, "Host: 127.0.0.1:7090@rebound.example"), 421),
        (get(GOOD, "Host: 127.0.0.1", "Host: rebound.example"), 421),
        (get(GOOD, "Host : rebound.example"), 400),
        (get(f"http://rebound.example{GOOD}", "Host: 127.0.0.1"), 404),
        (get(GOOD.upper()), 404),
        (get(f"/%30{GOOD[2:]}"), 404),
        (get(f"{GOOD}?a=b"), 404),
        (get(f"{GOOD}%0a"), 404),
        (get("/../../etc/passwd"), 404),
        (get(f"/nar/..{GOOD}"), 404),
        (get(f"/nar/{HASH}-{'0' * 64}.nar.zst"), 404),
        (get(f"/run-{HASH[:16]}{GOOD}"), 404),
        (get(f"/run-0123456789abcdef{GOOD}"), 200),
        (get("/log/x.drv"), 404),
        (get("/" + "a" * 100_000), 414),
        (get(GOOD, "X: " + "a" * 100_000), 431),
        (get(GOOD, *["X: a"] * 300), 431),
        (get(GOOD, "Content-Length: 3", method="PUT", body="abc"), 501),
        (get("*", method="OPTIONS"), 501),
    ],
)
def test_odd_requests(request_: bytes, status: int, served: tuple[str, int]) -> None:
    answer = ask(served, request_)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert (b"StorePath" in answer) == (status == 200 and not request_.startswith(b"HEAD"))


def test_each_run_has_an_address_of_its_own(served: tuple[str, int]) -> None:
    """Nix remembers by the address what a cache said, and so which key signed it."""
    settings = [settings_for("http://127.0.0.1:7090", fresh_key()) for _ in range(2)]
    urls = [re.search("^substituters = (.+)$", each, re.MULTILINE) for each in settings]
    first, second = (urlsplit(each[1]).path for each in urls if each is not None)
    assert first != second
    info = ask(served, get(f"{first}{GOOD}")).decode()
    nar = next(line[5:] for line in info.splitlines() if line.startswith("URL: "))
    assert ask(served, get(f"{first}/{nar}", method="HEAD")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "request_", [b"\0\xff\xfe\r\n\r\n", b"\x16\x03\x01\x02", b"PRI * HTTP/2.0\r\n\r\n"]
)
def test_what_is_no_http_ends(request_: bytes, served: tuple[str, int]) -> None:
    assert b"StorePath" not in ask(served, request_)
    assert ask(served, get(GOOD)).startswith(b"HTTP/1.1 200 ")


def test_the_body_of_a_request_is_no_request(served: tuple[str, int]) -> None:
    inside = f"GET {GOOD} HTTP/1.1\r\n\r\n"
    asked = f"GET /nix-cache-info HTTP/1.1\r\nContent-Length: {len(inside)}\r\n\r\n{inside}"
    answer = ask(served, asked.encode())
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"StorePath" not in answer


def test_many_clients_some_of_which_go_away(served: tuple[str, int], scene: Scene) -> None:
    info = ask(served, get(GOOD)).decode()
    url = next(line[5:] for line in info.splitlines() if line.startswith("URL: "))

    def take(number: int) -> bool:
        if number % 2:
            with socket.create_connection(served, timeout=10) as client:
                client.sendall(get(f"/{url}"))
                client.recv(1000)
                # No orderly end: a reset, as of a process that was killed.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return True
        connection = HTTPConnection(*served, timeout=30)
        connection.request("GET", f"/{url}")
        size = len(connection.getresponse().read())
        connection.close()
        return size > len(TREE.data)

    with ThreadPoolExecutor(24) as pool:
        assert all(pool.map(take, range(24)))
    assert not scene.reasons


def test_requests_that_come_at_once_are_answered_in_their_order(served: tuple[str, int]) -> None:
    info = ask(served, get(GOOD)).decode()
    url = next(line[5:] for line in info.splitlines() if line.startswith("URL: "))
    asked = [GOOD, "/nix-cache-info", f"/{url}", "/nothing", GOOD]
    text = b"".join(f"GET {each} HTTP/1.1\r\n\r\n".encode() for each in asked)
    with socket.create_connection(served, timeout=20) as client, client.makefile("rb") as file:
        client.sendall(text)
        for path in asked:
            status = file.readline()
            lines = list(iter(file.readline, b"\r\n"))
            (size,) = (int(each.split()[1]) for each in lines if each.startswith(b"Content-L"))
            body = file.read(size)
            assert (b" 404 " in status) == (path == "/nothing")
            assert (b"StorePath" in body) == (path == GOOD)
            assert (size > len(TREE.data)) == (path == f"/{url}")
