"""What is mounted is read right, and filled, from registries that are awkward, each by a server."""

from __future__ import annotations

import hashlib
import io
import random
import subprocess
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

import pytest

from nix_seed.formats.oci.reference import Reference
from nix_seed.image.assemble import StoreFiles
from nix_seed.image.rules.frames import Compressor
from nix_seed.image.rules.layer import write_layer
from nix_seed.registry.errors import Patience, Unreachable
from nix_seed.registry.open import Stores
from nix_seed.registry.store import Held
from nix_seed.use.mount import frames as frames_module
from nix_seed.use.mount.frame_file import MountedLayer
from nix_seed.use.mount.frames import FrameStore
from nix_seed.use.rules.tree import Piece
from support.mounts import mounted
from support.nars import NarFile
from support.storage import Part, Request, Storage, serving
from support.trees import put_all

RANDOM = random.Random(31)
Scene = tuple[MountedLayer, bytes, list[bytes]]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A layer, its bytes, and what its frames hold; none is fetched together with its neighbour."""
    root, sink = tmp_path_factory.mktemp("store"), io.BytesIO()
    trees = {f"p{n:02}": NarFile(RANDOM.randbytes(300_000)) for n in range(12)}
    layer = mounted(write_layer(put_all(root, trees), Compressor.at_hand(), StoreFiles(root), sink))
    store = FrameStore(tmp_path_factory.mktemp("right"), [layer], _Memory(sink.getvalue()))
    return layer, sink.getvalue(), read(store, layer)


class _Memory:
    def __init__(self, blob: bytes) -> None:
        self._blob = blob

    def read_range_unverified(self, _blob: object, start: int, length: int) -> bytes:
        return self._blob[start : start + length]


def read(store: FrameStore, layer: MountedLayer) -> list[bytes]:
    """Read all frames one after another, as a build reads; empty is what cannot be had."""
    found = []
    for number, frame in enumerate(layer.contents.frames):
        try:
            (data,) = store.contents([Piece(0, number, 0, frame.size)])
        except OSError:
            data = b""
        found.append(bytes(data))
    return found


def opened(storage: Storage, directory: Path, layer: MountedLayer) -> FrameStore:
    stores = Stores(patience=Patience(base=0.01, connect=3, stall=5))
    source = stores.open(Reference.parse(f"{storage.registry}/owner/seed:x"))
    return FrameStore(directory / "frames", [layer], source)


def every(count: int, answer: Callable[[Request, Part], bool]) -> dict[str, object]:
    """Answer so each *count*th part when it is first asked for: who asks again is not met twice."""

    def odd(request: Request, _number: int, part: Part) -> bool:
        number = request.storage.first(part[0])
        return number > 0 and number % count == 0 and answer(request, part)

    return {"odd": odd}


def at(first: int, last: int, answer: Callable[[Request, Part], bool]) -> dict[str, object]:
    def odd(request: Request, number: int, part: Part) -> bool:
        return first <= number <= last and answer(request, part)

    return {"odd": odd}


def whole(request: Request) -> str:
    size = len(request.storage.blob)
    return f"bytes 0-{size - 1}/{size}"


def flipped(request: Request, part: Part) -> bool:
    data = bytearray(request.storage.blob[part[0] : part[1]])
    data[len(data) // 2] ^= 1
    about = f"bytes {part[0]}-{part[1] - 1}/{len(request.storage.blob)}"
    return request.say(206, bytes(data), Content_Range=about)


MULTI = {"Content_Type": "multipart/byteranges; boundary=b"}
AWKWARD: dict[str, dict[str, object]] = {
    "addresses that live for three parts": {"address_uses": 3},
    "addresses whose end is a 401": {"address_uses": 2, "refused": 401},
    "addresses whose end is a 404": {"address_uses": 2, "refused": 404},
    "tokens that live for two parts": {"token_uses": 2, "address_uses": 1},
    "tokens, and no storage": {"token_uses": 3, "redirects": False},
    "416": every(3, lambda r, _: r.say(416, Content_Range=f"bytes */{len(r.storage.blob)}")),
    "200": every(3, lambda r, _: r.say(200, r.storage.blob)),
    "206 with all of it": every(3, lambda r, _: r.say(206, r.storage.blob, Content_Range=whole(r))),
    "206 of nothing named": every(3, lambda r, _: r.say(206, r.storage.blob)),
    "206 of several parts": every(
        3, lambda r, p: r.say(206, b"--b\r\n\r\n" + r.storage.blob[p[0] : p[1]], **MULTI)
    ),
    "a part that is too short": every(3, lambda r, p: r.give((p[0], p[0] + 99))),
    "429": every(3, lambda r, _: r.say(429, Retry_After="1")),
    "503 until a time": at(4, 4, lambda r, _: r.say(503, Retry_After=formatdate(time.time() + 1))),
    "429 for an hour, once": at(4, 4, lambda r, _: r.say(429, Retry_After="3600")),
    "500 for a while": at(4, 19, lambda r, _: r.say(500)),
    "a web page": every(3, lambda r, _: r.say(200, b"<html>", Content_Type="text/html")),
    "204": every(3, lambda r, _: r.say(204)),
    "cut": every(3, lambda r, p: r.cut(p, 1000)),
    "reset": every(3, lambda r, _: r.reset()),
    "one of three servers has other bytes": every(3, flipped),
    "a connection that says nothing": at(4, 4, lambda r, _: r.stall()),
    "a connection that says next to nothing": at(4, 4, lambda r, p: r.drip(p)),
}


@pytest.mark.parametrize("fills", [False, True], ids=["read", "read and filled"])
@pytest.mark.parametrize("how", AWKWARD)
def test_all_is_right_and_nothing_is_lacking(
    how: str, fills: bool, scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames_module, "_SLOW", 0.3)
    monkeypatch.setattr(frames_module, "_REST", 0.1)
    monkeypatch.setattr(frames_module, "_QUIET", 0.0)
    layer, blob, right = scene
    with serving(Storage(blob, **AWKWARD[how])) as storage:  # type: ignore[arg-type]
        store = opened(storage, tmp_path, layer)
        if fills:
            store.start_filling(((0, 5), (0, 4)))
        assert read(store, layer) == right
        assert store.undelivered == []
        if fills:
            assert store.wait_filled(20)
            assert store.is_whole()
        store.stop()


def test_a_network_that_stays_away_fails_reads_at_once_in_the_end(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames_module, "_LIMIT", 1.0)
    monkeypatch.setattr(frames_module, "_REST", 0.3)
    layer, blob, right = scene
    gone = at(4, 10**6, lambda r, _: r.reset())
    with serving(Storage(blob, **gone)) as storage:  # type: ignore[arg-type]
        store = opened(storage, tmp_path, layer)
        begun = time.monotonic()
        found = read(store, layer)
        # One reader waits for the whole of the limit, and not each after the other.
        assert 0.9 < time.monotonic() - begun < 6
        had = found.index(b"")
        assert found == [*right[:had], *[b""] * (len(right) - had)]
        assert len(store.undelivered) == len(right) - had
        assert "the connection" in store.undelivered[-1]
        # Once it is back, all of it is served again.
        storage.odd = lambda _request, _number, _part: False
        time.sleep(0.3)
        assert read(store, layer) == right
        store.stop()


def test_a_registry_that_gives_all_where_a_part_is_asked_for_gives_no_parts(scene: Scene) -> None:
    layer, blob, _ = scene
    answers: list[Callable[[Request, Part], bool]] = [
        lambda r, _: r.say(206, r.storage.blob, Content_Range=whole(r)),
        lambda r, _: r.say(206, r.storage.blob),
        lambda r, p: r.say(206, b"--b\r\n\r\n" + r.storage.blob[p[0] : p[1]], **MULTI),
        lambda r, _: r.say(200, r.storage.blob),
    ]
    for answer in answers:
        with serving(Storage(blob, **every(1, answer))) as storage:  # type: ignore[arg-type]
            source = Stores().open(Reference.parse(f"{storage.registry}/owner/seed:x"))
            assert not source.gives_ranges(layer.descriptor)
    with serving(Storage(blob)) as storage:
        source = Stores().open(Reference.parse(f"{storage.registry}/owner/seed:x"))
        assert source.gives_ranges(layer.descriptor)


def test_a_server_that_drips_for_ever_ends_what_waits_for_it(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte comes within the limit of a byte; no read and no filling may wait for all."""
    monkeypatch.setattr(frames_module, "_REST", 0.1)
    monkeypatch.setattr(frames_module, "_FILL_LIMIT", 0.5)
    layer, blob, _ = scene
    drips = at(1, 1 << 30, lambda r, p: r.drip(p))
    with serving(Storage(blob, **drips)) as storage:  # type: ignore[arg-type]
        stores = Stores(patience=Patience(attempts=2, base=0.01, connect=3, stall=0.5))
        source = stores.open(Reference.parse(f"{storage.registry}/owner/seed:x"))
        said = "too little arrived within the time limit: [0-9]+ bytes in "
        with pytest.raises(Unreachable, match=said):
            source.read_range_unverified(layer.descriptor, 0, 100_000)
        held = Held(1000, hashlib.sha256(blob[:1000]))
        with pytest.raises(Unreachable, match=said):
            list(source.open_blob(layer.descriptor, held))
        store = FrameStore(tmp_path / "frames", [layer], source)
        store.start_filling(())
        assert not store.wait_filled(30)
        assert not store.is_filling(), "it gave up"
        store.stop()


def test_a_full_disk_gives_what_was_checked_from_memory(scene: Scene, tmp_path: Path) -> None:
    """And no signal ends the process, as writing to a hole of what is mapped would."""
    layer, blob, right = scene
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "small", small], check=False
    ).returncode:
        pytest.skip("needs root, to mount a small file system")
    try:
        with serving(Storage(blob)) as storage:
            store = opened(storage, small, layer)
            assert read(store, layer) == right
            assert store.undelivered == []
            assert not store.is_whole(), "only what is on disk counts as there"
            store.stop()
        with pytest.raises(OSError, match="No space left"):
            opened(storage, small / "more", layer)
    finally:
        subprocess.run(["umount", "-l", small], check=True)
