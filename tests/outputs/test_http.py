"""What the cache's server reads and answers, byte by byte, on one connection."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from nix_seed.outputs.server import CacheServer, serving
from support.output_scene import HASH, Scene

INFO = b"GET /nix-cache-info HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def address(scene: Scene) -> Iterator[tuple[str, int]]:
    scene.keep()
    with serving(CacheServer(scene.cache())) as server:
        found = urlsplit(server.url)
        assert found.hostname is not None
        assert found.port is not None
        yield found.hostname, found.port


def answers(address: tuple[str, int], *requests: bytes) -> bytes:
    """All that is answered to *requests*, sent at once, until the server or we are done."""
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(b"".join(requests))
        connection.shutdown(socket.SHUT_WR)
        parts = []
        while data := connection.recv(1 << 16):
            parts.append(data)
    return b"".join(parts)


def test_one_connection_answers_many(address: tuple[str, int]) -> None:
    narinfo = f"GET /{HASH}.narinfo HTTP/1.1\r\nHost: x\r\nAccept-Encoding: zstd\r\n\r\n".encode()
    found = answers(address, INFO, narinfo, INFO)
    assert found.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert found.count(b"\r\nDate: ") == 3
    assert b"Connection: close" not in found
    assert f"StorePath: /nix/store/{HASH}-greeting\n".encode() in found


@pytest.mark.parametrize(
    "last",
    [
        b"GET /nix-cache-info HTTP/1.0\r\n\r\n",
        b"GET /nix-cache-info HTTP/1.1\r\nHost: x\r\ncOnnection: Close\r\n\r\n",
    ],
)
def test_it_closes_when_it_is_asked_to(address: tuple[str, int], last: bytes) -> None:
    found = answers(address, last, INFO)
    assert found.count(b"HTTP/1.1 200 OK\r\n") == 1
    assert b"\r\nConnection: close\r\n" in found


def test_a_head_has_no_body(address: tuple[str, int]) -> None:
    found = answers(address, INFO.replace(b"GET", b"HEAD"))
    assert found.startswith(b"HTTP/1.1 200 OK\r\n")
    assert found.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /nix-cache-info HTTP/1.1\r\n" + b"X: y\r\n" * 500 + b"\r\n", b" 431 "),
        (b"GET /nix-cache-info HTTP/1.1\r\nX: " + b"y" * (1 << 16) + b"\r\n\r\n", b" 431 "),
        (b"GET /nix-cache-info HTTP/1.1\r\nHost: x", b" 431 "),
        (b"GET /nix-cache-info x HTTP/1.1\r\n\r\n", b" 400 "),
        (b"GET /nix-cache-info HTTP/9.9\r\n\r\n", b" 505 "),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b" 400 "),
        (b"POST /nix-cache-info HTTP/1.1\r\nHost: x\r\n\r\n", b" 501 "),
    ],
)
def test_what_is_no_request_of_nixs_is_refused(
    address: tuple[str, int], sent: bytes, status: bytes
) -> None:
    found = answers(address, sent)
    assert status in found
    assert b" 200 " not in found
    assert b"200 OK" in answers(address, INFO)
