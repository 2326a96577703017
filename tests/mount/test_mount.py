"""A mounted store is the unpacked one, to the last bit, whatever the network does."""

import ctypes
import errno
import hashlib
import io
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from nix_seed.core.errors import CouldNotCheck
from nix_seed.formats.nix.store_path import PathInfo
from nix_seed.formats.oci.manifest import Descriptor
from nix_seed.image.assemble import StoreFiles
from nix_seed.image.rules.frames import FRAME_SIZE, Compressor
from nix_seed.image.rules.layer import write_layer
from nix_seed.use.mount import frames as frames_module
from nix_seed.use.mount.frame_file import FrameFile, MountedLayer
from nix_seed.use.mount.frames import FrameStore
from nix_seed.use.rules.tree import Piece
from nix_seed.use.store import check_path
from support.mounts import look, mounted, need_fuse
from support.nars import Directory, NarFile, Symlink, Tree
from support.trees import AWKWARD, let_others_reach, put_all

RANDOM = random.Random(11)


def deep(depth: int) -> Tree:
    tree: Tree = NarFile(b"at the bottom")
    for level in range(depth):
        tree = Directory({b"level-%d" % level: tree, b"file": NarFile(b"%d" % level)})
    return tree


TREES: dict[str, Tree] = {
    "awkward": AWKWARD,
    "large": Directory({b"large": NarFile(RANDOM.randbytes(2 * FRAME_SIZE + 4321))}),
    "exact": NarFile(RANDOM.randbytes(2 * FRAME_SIZE - 512)),
    "sparse": NarFile(bytes(3 * FRAME_SIZE) + b"end"),
    "empty": Directory({b"empty": NarFile(b""), b"none": Directory({})}),
    "wide": Directory({b"n%04d" % n: NarFile(b"%d" % n) for n in range(3000)}),
    "deep": deep(60),
    "link": Symlink(b"/nix/store/nowhere"),
    "program": NarFile(b"#!/bin/sh\n", executable=True),
}


@dataclass
class Registry:
    """Gives parts of a blob, as well as it is told to."""

    blob: bytes
    asked: list[tuple[int, int]] = field(default_factory=list)
    broken: bool = False
    flip: bool = False
    cut: bool = False
    delay: float = 0.0

    def read_range_unverified(self, blob: Descriptor, start: int, length: int) -> bytes:
        assert 0 <= start < start + length <= blob.size
        self.asked.append((start, length))
        time.sleep(self.delay)
        if self.broken:
            raise CouldNotCheck("the registry is gone")
        data = self.blob[start : start + length]
        if self.flip:
            data = bytes([data[0] ^ 1]) + data[1:]
        return data[:-1] if self.cut else data


@dataclass(frozen=True)
class Scene:
    infos: list[PathInfo]
    root: Path
    registry: Registry
    layer: MountedLayer

    def store(self, directory: Path) -> FrameStore:
        return FrameStore(directory / "frames", [self.layer], self.registry)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    root, sink = tmp_path_factory.mktemp("store"), io.BytesIO()
    infos = put_all(root, TREES)
    layer = write_layer(infos, Compressor.at_hand(), StoreFiles(root), sink)
    return Scene(infos, root, Registry(sink.getvalue()), mounted(layer))


@pytest.fixture
def scene(made: Scene) -> Scene:
    need_fuse()
    return Scene(made.infos, made.root, Registry(made.registry.blob), made.layer)


def wrong_paths(infos: list[PathInfo], store: Path) -> list[str]:
    """Those of *infos* that are not, with times, modes and NAR hash, what they should be."""
    fd = os.open(store, os.O_RDONLY)
    return [info.path.name for info in infos if not check_path(info, fd, case_hack=False)]


def read_all(store: Path) -> dict[str, str | int]:
    """Each file's SHA-256, or the number of the error that reading it gave."""
    found: dict[str, str | int] = {}
    for directory, _, files in os.walk(store):
        for name in files:
            path = os.path.join(directory, name)
            if os.path.islink(path):
                continue
            try:
                with open(path, "rb") as file:
                    found[path] = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                found[path] = error.errno or 0
    return found


def test_every_path_has_its_nar_hash(scene: Scene, tmp_path: Path) -> None:
    frames = scene.store(tmp_path)
    wrong = look(
        frames, [scene.layer], tmp_path / "mnt", lambda store: wrong_paths(scene.infos, store)
    )
    assert wrong == []
    assert frames.undelivered == []
    frames.start_filling(())
    assert frames.wait_filled(30)
    # From its own disk, by another process's eyes, with nobody to ask.
    scene.registry.broken = True
    again = scene.store(tmp_path)
    assert again.is_whole()
    wrong = look(
        again, [scene.layer], tmp_path / "mnt", lambda store: wrong_paths(scene.infos, store)
    )
    assert wrong == []


def test_names_and_the_rest_of_it(scene: Scene, tmp_path: Path) -> None:
    names = {info.path.name: info.path.base_name for info in scene.infos}

    def work(store: Path) -> list[object]:
        wide = store / names["wide"]
        errors = []
        for action in (
            lambda: os.mkdir(store / "new"),
            lambda: os.unlink(wide / "n0000"),
            lambda: (wide / "n0000").write_text("x"),
            lambda: os.chmod(wide / "n0000", 0o777),
            lambda: os.getxattr(wide, "user.x"),
            lambda: os.stat(wide / "absent"),
            lambda: os.stat(wide / "n0000" / "below"),
        ):
            try:
                action()
                errors.append(0)
            except OSError as error:
                errors.append(error.errno or 0)
        return [
            sorted(os.listdir(store)) == sorted(names.values()),
            len(os.listdir(wide)),
            (wide / "n1234").read_text(),
            os.readlink(store / names["link"]),
            (os.stat(wide).st_mode, os.stat(wide).st_nlink, int(os.stat(wide).st_mtime)),
            os.statvfs(store).f_namemax,
            errors,
        ]

    assert look(scene.store(tmp_path), [scene.layer], tmp_path / "mnt", work) == [
        True,
        3000,
        "1234",
        "/nix/store/nowhere",
        (0o40555, 1, 1),
        255,
        [errno.EROFS] * 4 + [errno.EOPNOTSUPP, errno.ENOENT, errno.ENOTDIR],
    ]


def test_many_readers_at_once(scene: Scene, tmp_path: Path) -> None:
    scene.registry.delay = 0.01
    paths = {info.path.name: info.path.base_name for info in scene.infos}
    large = scene.root / "nix/store" / paths["large"] / "large"
    data = large.read_bytes()

    def work(store: Path) -> int:
        def read(seed: int) -> int:
            chance, wrong = random.Random(seed), 0
            with open(store / paths["large"] / "large", "rb") as file:
                for _ in range(40):
                    at, size = chance.randrange(len(data)), chance.randrange(1, 300_000)
                    wrong += os.pread(file.fileno(), size, at) != data[at : at + size]
            return wrong

        with ThreadPoolExecutor(16) as pool:
            return sum(pool.map(read, range(16)))

    frames = scene.store(tmp_path)
    frames.start_filling(())
    assert look(frames, [scene.layer], tmp_path / "mnt", work) == 0
    assert frames.wait_filled(30)
    # Whoever waited for a frame that was on its way did not ask for it a second time.
    assert sum(length for _, length in scene.registry.asked) <= 1.2 * scene.layer.descriptor.size


def test_only_what_is_read_is_fetched(scene: Scene, tmp_path: Path) -> None:
    name = next(i.path.base_name for i in scene.infos if i.path.name == "program")
    frames = scene.store(tmp_path)
    said = look(frames, [scene.layer], tmp_path / "mnt", lambda s: (s / name).read_bytes())
    assert said == b"#!/bin/sh\n"
    assert frames.fetched < 1 << 20 < scene.layer.descriptor.size
    assert len(frames.touched) == 1


@pytest.mark.parametrize("how", ["flip", "cut", "broken"])
def test_what_cannot_be_had_is_an_error_and_on_record(
    scene: Scene, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames_module, "_REST", 0.2)
    monkeypatch.setattr(frames_module, "_LIMIT", 1.0)
    right = read_all(scene.root / "nix/store")
    setattr(scene.registry, how, True)
    frames = scene.store(tmp_path)
    begun = time.monotonic()
    found = look(frames, [scene.layer], tmp_path / "mnt", read_all)
    assert time.monotonic() - begun < 30
    got = {os.path.relpath(path, tmp_path / "mnt"): value for path, value in found.items()}
    for path, value in got.items():
        assert value in (errno.EIO, right[str(scene.root / "nix/store" / path)])
    assert errno.EIO in got.values()
    assert frames.undelivered
    assert (tmp_path / "frames/undelivered").read_text().splitlines() == frames.undelivered
    # Nothing of it was kept: with a registry that works, all is right.
    setattr(scene.registry, how, False)
    time.sleep(0.3)
    again = scene.store(tmp_path)
    wrong = look(
        again, [scene.layer], tmp_path / "mnt", lambda store: wrong_paths(scene.infos, store)
    )
    assert (wrong, again.undelivered) == ([], [])


@pytest.mark.parametrize("claimed", [5, 1 << 36, (1 << 64) - 1])
def test_a_frame_that_claims_another_size_takes_no_memory(
    scene: Scene, tmp_path: Path, claimed: int
) -> None:
    contents = scene.layer.contents
    old = contents.frames[0]
    header = bytes.fromhex("28b52ffde0") + claimed.to_bytes(8, "little")
    frame = header.ljust(old.compressed, b"\1")
    new = old._replace(sha256=hashlib.sha256(frame).digest())
    lying = replace(scene.layer, contents=replace(contents, frames=(new, *contents.frames[1:])))
    scene.registry.blob = frame + scene.registry.blob[len(frame) :]
    frames = FrameStore(tmp_path / "frames", [lying], scene.registry)
    with pytest.raises(OSError, match="as its table says") as caught:
        frames.contents([Piece(0, 0, 0, 1)])
    assert caught.value.errno == errno.EIO
    assert len(frames.undelivered) == 1


def test_a_damaged_frame_on_disk_is_fetched_again(scene: Scene, tmp_path: Path) -> None:
    frames = scene.store(tmp_path)
    frames.start_filling(())
    assert frames.wait_filled(30)
    (marks,) = (tmp_path / "frames").glob("*.have")
    with marks.with_suffix("").open("r+b") as file:
        file.seek(1000)
        file.write(bytes(100_000))
    again = scene.store(tmp_path)
    wrong = look(
        again, [scene.layer], tmp_path / "mnt", lambda store: wrong_paths(scene.infos, store)
    )
    assert (wrong, again.undelivered) == ([], [])
    assert again.fetched > 0


def test_a_stalling_registry_is_given_up(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames_module, "_LIMIT", 0.5)
    scene.registry.delay = 3.0
    name = next(i.path.base_name for i in scene.infos if i.path.name == "program")

    def work(store: Path) -> tuple[int, float]:
        begun = time.monotonic()
        try:
            (store / name).read_bytes()
        except OSError as error:
            return error.errno or 0, time.monotonic() - begun
        return 0, 0.0

    frames = scene.store(tmp_path)
    number, seconds = look(frames, [scene.layer], tmp_path / "mnt", work)
    assert number == errno.EIO
    assert seconds < 2.5
    assert "within" in frames.undelivered[0]


def test_what_is_listed_first_comes_first(scene: Scene, tmp_path: Path) -> None:
    places = scene.layer.contents.places
    listed = [(0, 6), (0, 5), (0, 4_000_000), (9, 1)]  # the last two are nobody's
    frames = scene.store(tmp_path)
    frames.start_filling(listed)
    assert frames.wait_filled(30)
    assert (places[5], places[7] - places[5]) == scene.registry.asked[0]


def test_what_is_listed_and_on_disk_is_decoded_before_it_is_read(
    made: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second mount of an image waits for no decoding, as the first did not."""
    earlier = made.store(tmp_path)
    earlier.start_filling(())
    assert earlier.wait_filled(30)
    later = made.store(tmp_path)
    later.start_filling([(0, 5), (0, 3), (0, 4_000_000), (9, 1)])
    while later.is_filling():
        time.sleep(0.01)
    monkeypatch.setattr(FrameFile, "read", lambda *_: pytest.fail("it was not"))
    pieces = [Piece(0, number, 0, 1000) for number in (3, 5)]
    assert all(map(len, later.contents(pieces)))
    with pytest.raises(pytest.fail.Exception):
        later.contents([Piece(0, 1, 0, 1000)])


def test_an_ordinary_user(scene: Scene, tmp_path: Path) -> None:
    """As root only until there is a device for everyone, as many systems have it."""
    tmp_path.chmod(0o755)
    let_others_reach(tmp_path)
    mnt = tmp_path / "mnt"
    mnt.mkdir()

    def before() -> None:
        from nix_seed.use.mount import linux

        linux.enter_mount_namespace()
        device = tmp_path / "fuse"
        os.mknod(device, 0o020666, os.makedev(10, 229))
        os.chmod(device, 0o666)
        linux._mount(str(device), Path("/dev/fuse"), None, 4096, None)
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        # Who changed its user may not write its own maps, unless it says this (PR_SET_DUMPABLE).
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)

    def work(store: Path) -> tuple[int, int]:
        found = read_all(store)
        return os.stat(store).st_uid, sum(isinstance(each, str) for each in found.values())

    frames = scene.store(tmp_path)
    # Inside its namespace the user is root, and what is mounted is its own.
    assert look(frames, [scene.layer], mnt, work, before) == (
        0,
        len(read_all(scene.root / "nix/store")),
    )
