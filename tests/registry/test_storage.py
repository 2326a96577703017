"""Parts of a blob come from where the registry sends to, as long as that answers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, NixSeedError
from nix_seed.formats.oci.manifest import Descriptor
from nix_seed.formats.oci.reference import Reference
from nix_seed.registry.open import Stores
from support.web import answering

DATA = bytes(range(256)) * 40
BLOB = Descriptor("x", Digest.of(DATA), len(DATA))


@dataclass
class Servers:
    """A registry that redirects blobs, and the storage it redirects to, on another port."""

    asked: list[str] = field(default_factory=list)
    secrets: list[str | None] = field(default_factory=list)
    valid: str = "1"
    about: str = ""
    registry: str = ""
    storage: str = ""


@contextmanager
def serving() -> Iterator[Servers]:
    servers = Servers()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/v2/"):
                servers.asked.append("registry")
                target = f"http://{servers.storage}/data?signature={servers.valid}"
                self.answer(307, {"Location": target}, b"")
                return
            servers.asked.append("storage")
            servers.secrets.append(self.headers.get("Authorization"))
            if not self.path.endswith(f"={servers.valid}"):
                self.answer(403, {}, b"expired")
                return
            first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
            about = servers.about or f"bytes {first}-{last}/{len(DATA)}"
            self.answer(206, {"Content-Range": about}, DATA[first : last + 1])

        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with answering(Handler) as one, answering(Handler) as other:
        servers.registry, servers.storage = (f"127.0.0.1:{e.server_port}" for e in (one, other))
        yield servers


def test_the_registry_is_asked_once_and_again_when_its_answer_expired() -> None:
    with serving() as servers:
        store = Stores().open(Reference.parse(f"{servers.registry}/owner/seed:x"))
        for start in (0, 1000, 5000):
            assert store.read_range_unverified(BLOB, start, 300) == DATA[start : start + 300]
        assert servers.asked == ["registry", "storage", "storage", "storage"]
        servers.valid = "2"
        assert store.read_range_unverified(BLOB, 17, 40) == DATA[17:57]
        assert servers.asked[4:] == ["storage", "registry", "storage"]
        assert servers.secrets == [None] * len(servers.secrets)


def test_storage_that_is_gone_is_not_the_registrys_end() -> None:
    with serving() as servers, serving() as others:
        store = Stores().open(Reference.parse(f"{servers.registry}/owner/seed:x"))
        assert store.read_range_unverified(BLOB, 0, 10) == DATA[:10]
        old, servers.storage = servers.storage, others.storage
        store._session._storage = {  # type: ignore[attr-defined]
            url: address.replace(old, "127.0.0.1:9")
            for url, address in store._session._storage.items()  # type: ignore[attr-defined]
        }
        assert store.read_range_unverified(BLOB, 5, 10) == DATA[5:15]
        assert others.asked == ["storage"]


@pytest.mark.parametrize(
    ("about", "error"),
    [
        ("bytes 11-310/10240", CouldNotCheck),
        ("bytes */10240", CouldNotCheck),
        ("bytes 10-309/10241", CheckedFalse),
    ],
)
def test_another_part_than_was_asked_for_is_not_taken(
    about: str, error: type[NixSeedError]
) -> None:
    with serving() as servers:
        servers.about = about
        store = Stores().open(Reference.parse(f"{servers.registry}/owner/seed:x"))
        with pytest.raises(error, match="bytes"):
            store.read_range_unverified(BLOB, 10, 300)
