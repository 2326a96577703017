from __future__ import annotations

import hashlib
import io
import json
import os
import random
import stat
import subprocess
import sys
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest

from image.golden.make_layers import ENTRIES, TREES, VECTORS, vectors
from nix_seed.core.digests import NarHash
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.formats.oci import tar
from nix_seed.formats.zstd import SeekTable
from nix_seed.image.assemble import StoreFiles, assemble_layers
from nix_seed.image.rules.frames import FRAME_SIZE, Compressor, Span, locate_paths
from nix_seed.image.rules.layer import (
    FinishedLayer,
    Node,
    layer_key,
    write_entries_layer,
    write_layer,
)
from support import nars as nar
from support.blobs import Memory, decompress, members, unpack_store
from support.nars import Directory, NarFile, Tree, nar_hash
from support.programs import need, run
from support.trees import AWKWARD, put, put_all

ZSTD = Compressor.at_hand("zstd")
GZIP = Compressor.at_hand("gzip")
BOTH = pytest.mark.parametrize("compressor", [ZSTD, GZIP], ids=lambda compressor: compressor.name)


@pytest.fixture
def infos(tmp_path: Path) -> list[PathInfo]:
    return put_all(tmp_path, TREES)


def write(
    root: Path, infos: list[PathInfo], compressor: Compressor = ZSTD
) -> tuple[FinishedLayer, bytes]:
    sink = io.BytesIO()
    layer = write_layer(infos, compressor, StoreFiles(root), sink)
    return layer, sink.getvalue()


def located(layer: FinishedLayer, infos: list[PathInfo]) -> dict[StorePath, Span]:
    """Where the frames of each path lie in the blob, the first path first."""
    found = locate_paths(SeekTable(layer.frames), [info.path for info in infos])
    assert found is not None
    return found


def test_golden_vectors() -> None:
    """If this fails, bytes changed: raise FORMAT and make the vectors anew, or undo the change."""
    assert vectors() == json.loads(VECTORS.read_text())


@BOTH
def test_a_layer_is_what_it_says(
    tmp_path: Path, infos: list[PathInfo], compressor: Compressor
) -> None:
    layer, blob = write(tmp_path, infos, compressor)
    archive = decompress(layer, blob)
    assert layer.descriptor.size == len(blob)
    assert layer.descriptor.digest.hex == hashlib.sha256(blob).hexdigest()
    assert layer.diff_id.hex == hashlib.sha256(archive).hexdigest()
    assert layer.tar_size == len(archive) == sum(frame.size for frame in layer.frames)
    assert max(frame.size for frame in layer.frames) == FRAME_SIZE


def test_unpacked_it_is_the_store_that_nix_would_make(
    tmp_path: Path, infos: list[PathInfo]
) -> None:
    layer, blob = write(tmp_path, infos)
    unpack_store(decompress(layer, blob), tmp_path / "out")
    for info in infos:
        path = tmp_path / "out/nix/store" / info.path.base_name
        dumped = run(need("nix-store"), "--dump", path)
        assert NarHash(hashlib.sha256(dumped).hexdigest()) == info.nar_hash
        assert len(dumped) == info.nar_size


def test_members_are_canonical_and_every_parent_is_there(
    tmp_path: Path, infos: list[PathInfo]
) -> None:
    layer, blob = write(tmp_path, infos)
    found = members(decompress(layer, blob))
    names = [member.name for member in found]
    assert len(set(names)) == len(names)
    seen = {""}
    for member in found:
        assert member.name.rpartition("/")[0] in seen, "a parent comes first"
        seen.add(member.name)
        modes = {tar.DIRECTORY: {0o555}, tar.SYMLINK: {0o777}, tar.FILE: {0o444, 0o555}}
        allowed = {0o755} if member.name in ("nix", "nix/store") else modes[member.type]
        assert member.mode in allowed
        assert (member.uid, member.gid, member.mtime) == (0, 0, 1)
    assert names[:2] == ["nix", "nix/store"]
    assert names[2:] == sorted(names[2:], key=lambda name: os.fsencode(name).split(b"/"))


def test_each_path_s_frames_stand_alone(tmp_path: Path, infos: list[PathInfo]) -> None:
    """The frames of a path are those of a layer that holds only it: fetched, they are that path."""
    layer, blob = write(tmp_path, infos)
    table = SeekTable.size_from_footer(blob[-9:], "blob")
    assert SeekTable.parse(blob[-table:], "blob").frames == layer.frames
    places = located(layer, infos)
    for info in infos:
        start, end = places[info.path]
        alone, alone_blob = write(tmp_path, [info])
        begin, stop = located(alone, [info])[info.path]
        assert blob[start:end] == alone_blob[begin:stop]
    for (_, end), (start, _) in pairwise(places.values()):
        assert end == start, "nothing lies between"


def test_the_frames_of_a_span_are_that_path_s_tar_entries(
    tmp_path: Path, infos: list[PathInfo]
) -> None:
    layer, blob = write(tmp_path, infos)
    for path, (start, end) in located(layer, infos).items():
        part = blob[start:end]
        names = [member.name for member in members(decompress(layer, part) + tar.END)]
        assert names[0] == f"nix/store/{path.base_name}"
        assert all(name.startswith(names[0]) for name in names)


@pytest.mark.parametrize("name", ["zstd", "tar"])
def test_the_system_s_programs_read_it(tmp_path: Path, infos: list[PathInfo], name: str) -> None:
    need(name)
    layer, blob = write(tmp_path, infos)
    archive = run("zstd", "-dc", stdin=blob)
    assert hashlib.sha256(archive).hexdigest() == layer.diff_id.hex
    if name == "tar":
        env = {"LC_ALL": "C", "PATH": os.environ["PATH"]}
        listed = run("tar", "--list", "--quoting-style=escape", stdin=archive, env=env)
        assert len(listed.splitlines()) == len(members(archive))


def test_gzip_members_read_as_one(tmp_path: Path, infos: list[PathInfo]) -> None:
    layer, blob = write(tmp_path, infos, GZIP)
    archive = run(need("gzip"), "-dc", stdin=blob)
    assert hashlib.sha256(archive).hexdigest() == layer.diff_id.hex
    assert blob[4:8] == bytes(4), "no time"


def test_order_given_does_not_matter(tmp_path: Path, infos: list[PathInfo]) -> None:
    backwards = infos[::-1]
    assert write(tmp_path, infos) == write(tmp_path, backwards)
    assert layer_key(infos, ZSTD) == layer_key(backwards, ZSTD)


def test_the_key_is_of_paths_hashes_and_compressor(infos: list[PathInfo]) -> None:
    keys = {
        layer_key(infos, ZSTD),
        layer_key(infos[1:], ZSTD),
        layer_key(infos, replace(ZSTD, level=4)),
        layer_key(infos, GZIP),
        layer_key([replace(infos[0], nar_hash=NarHash.of(b"")), *infos[1:]], ZSTD),
    }
    assert len(keys) == 5


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_threads_do_not_matter(tmp_path: Path, infos: list[PathInfo], threads: int) -> None:
    layers = [infos, infos[:2], infos[2:]]
    target = Memory()
    done = assemble_layers(layers, ZSTD, StoreFiles(tmp_path), target, threads=threads)
    assert [(one.layer, target.blobs[one.key]) for one in done] == [
        write(tmp_path, layer) for layer in layers
    ]


def test_a_frame_does_not_depend_on_what_was_compressed_before() -> None:
    noise = random.Random(1).randbytes(50_000)
    data = (noise[:9_000] + noise[4_000:20_000]) * 9
    for level in (1, 3, 6, 9, 12, 19):
        compressor = replace(ZSTD, level=level)
        first = compressor.compress(data)
        compressor.compress(noise)
        assert compressor.compress(memoryview(bytearray(b"-" + data))[1:]) == first


SCRIPT = """
import io, sys
from pathlib import Path
from nix_seed.image.assemble import StoreFiles
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.core.digests import NarHash
from nix_seed.image.rules.frames import Compressor
from nix_seed.image.rules.layer import write_layer
root, *rest = sys.argv[1:]
infos = [PathInfo(StorePath(p), NarHash(h), int(s), ()) for p, h, s in zip(*[iter(rest)] * 3)]
layer = write_layer(infos, Compressor.at_hand(), StoreFiles(Path(root)), io.BytesIO())
print(layer.descriptor.digest)
"""


def test_neither_time_zone_locale_umask_nor_hash_seed_matters(
    tmp_path: Path, infos: list[PathInfo]
) -> None:
    arguments = [
        text for i in infos for text in (i.path.base_name, i.nar_hash.hex, str(i.nar_size))
    ]
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), *arguments]
    path = os.pathsep.join(sys.path)
    digests = {
        subprocess.run(
            command,
            env={"PYTHONPATH": path, "PATH": os.environ["PATH"], **env},
            umask=umask,
            capture_output=True,
            check=True,
        ).stdout
        for env, umask in [
            ({"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "1"}, 0o022),
            ({"TZ": "Pacific/Chatham", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "2"}, 0o077),
            ({"TZ": "EST5", "LANG": "de_DE", "PYTHONUTF8": "0", "PYTHONHASHSEED": "3"}, 0),
        ]
    }
    assert digests == {f"{write(tmp_path, infos)[0].descriptor.digest}\n".encode()}


def test_modes_times_and_hard_links_of_the_store_do_not_matter(tmp_path: Path) -> None:
    tree = Directory({b"a": NarFile(b"same"), b"b": NarFile(b"same"), b"c": NarFile(b"other")})
    one, other = tmp_path / "one", tmp_path / "other"
    infos = [put(one, "x", tree)]
    # Made in another order, so that the directory lists it in another.
    reverse = Directory(dict(reversed(list(tree.entries.items()))))
    put(other, "x", reverse)
    path = other / "nix/store" / infos[0].path.base_name
    (path / "b").unlink()
    (path / "b").hardlink_to(path / "a")
    (path / "c").chmod(0o600)
    os.utime(path / "a", (5, 5))
    path.chmod(0o700)
    assert write(one, infos) == write(other, infos)


@pytest.mark.parametrize("damage", ["content", "size", "extra", "mode", "target"])
def test_a_path_that_is_not_what_nix_recorded(tmp_path: Path, damage: str) -> None:
    info = put(tmp_path, "damaged", AWKWARD)
    path = tmp_path / "nix/store" / info.path.base_name
    if damage == "content":
        (path / "block").write_bytes(b"z" * 512)
    elif damage == "size":
        (path / "block").write_bytes(b"x" * 511)
    elif damage == "extra":
        (path / "extra").touch()
    elif damage == "mode":
        (path / "block").chmod(0o755)
    else:
        (path / "dangling").unlink()
        (path / "dangling").symlink_to("/nowhere/at alm")
    with pytest.raises(CheckedFalse, match="is not what the store's database says") as caught:
        write(tmp_path, [info])
    assert str(info.path) in caught.value.message
    assert "the store changed" in str(caught.value.hint)
    assert caught.value.exit_code == 1


def test_wrong_size_or_hash_on_record(tmp_path: Path) -> None:
    info = put(tmp_path, "x", NarFile(b"x"))
    with pytest.raises(CheckedFalse, match="its NAR has 120 bytes where Nix recorded 121"):
        write(tmp_path, [replace(info, nar_size=121)])
    with pytest.raises(CheckedFalse, match=r"its NAR hash is sha256-.* where Nix recorded sha256-"):
        write(tmp_path, [replace(info, nar_hash=NarHash.of(b""))])


def test_a_path_that_vanished(tmp_path: Path) -> None:
    info = put(tmp_path, "x", NarFile(b"x"))
    (tmp_path / "nix/store" / info.path.base_name).unlink()
    with pytest.raises(CheckedFalse, match="is gone, or part of it: No such file") as caught:
        write(tmp_path, [info])
    assert str(info.path) in caught.value.message


@dataclass
class Meddler(StoreFiles):
    """The real reader, on a store where something happens as a file is opened."""

    root: Path
    deed: str

    def __post_init__(self) -> None:
        super().__init__(self.root)

    def open(self, path: object, node: Node) -> int:
        if node.name == b"victim":
            if self.deed == "vanish":
                os.unlink(node.source)
            elif self.deed == "shrink":
                os.truncate(node.source, 3)
            elif self.deed == "grow":
                with open(node.source, "ab") as file:
                    file.write(b"more")
            elif self.deed == "rewrite":
                with open(node.source, "r+b") as file:
                    file.write(b"X")
            else:
                os.unlink(node.source)
                os.symlink("/etc/passwd", node.source)
        return super().open(path, node)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("deed", "message"),
    [
        ("vanish", "is gone, or part of it"),
        ("shrink", "/victim became shorter while it was read"),
        ("rewrite", "its NAR hash is"),
        ("link", "is gone, or part of it: Too many levels of symbolic links"),
    ],
)
def test_a_file_that_changes_while_it_is_read(tmp_path: Path, deed: str, message: str) -> None:
    info = put(tmp_path, "x", Directory({b"victim": NarFile(b"contents")}))
    with pytest.raises(CheckedFalse, match=message) as caught:
        write_layer([info], ZSTD, Meddler(tmp_path, deed), io.BytesIO())
    assert str(info.path) in caught.value.message


def test_a_file_that_grows_is_taken_as_nix_recorded_it(tmp_path: Path) -> None:
    info = put(tmp_path, "x", Directory({b"victim": NarFile(b"contents")}))
    before, _ = write(tmp_path, [info])
    assert write_layer([info], ZSTD, Meddler(tmp_path, "grow"), io.BytesIO()) == before


def test_an_unreadable_store_is_not_a_changed_one(tmp_path: Path) -> None:
    info = put(tmp_path, "x", Directory({b"loop": NarFile(b"")}))
    store = StoreFiles(tmp_path)
    node = Node(0, b"/loop", b"loop", 1, size=1, source=os.fsencode(tmp_path))
    handle = store.open(info.path, node)
    with pytest.raises(CouldNotCheck, match="reading a file of the store failed: Is a directory"):
        store.read(handle, memoryview(bytearray(8)))
    store.close(handle)


def test_a_socket_or_pipe_is_no_part_of_a_store(tmp_path: Path) -> None:
    info = put(tmp_path, "x", Directory({}))
    os.mkfifo(tmp_path / "nix/store" / info.path.base_name / "pipe")
    with pytest.raises(InputError, match="pipe is no file, directory or symlink"):
        write(tmp_path, [info])


def test_the_case_hack_is_undone_where_nix_does_it(tmp_path: Path) -> None:
    plain: Tree = Directory({b"A": NarFile(b"1"), b"a": NarFile(b"2"), b"b": NarFile(b"3")})
    hacked = Directory(
        {b"A": NarFile(b"1"), b"a~nix~case~hack~1": NarFile(b"2"), b"b": NarFile(b"3")}
    )
    one, other = tmp_path / "one", tmp_path / "other"
    info = put(one, "x", plain)
    put(other, "x", hacked)
    made = next((other / "nix/store").iterdir())
    made.rename(made.with_name(info.path.base_name))
    sink = io.BytesIO()
    layer = write_layer([info], ZSTD, StoreFiles(other, case_hack=True), sink)
    assert layer == write(one, [info])[0]
    with pytest.raises(CheckedFalse):
        write_layer([info], ZSTD, StoreFiles(other, case_hack=False), io.BytesIO())
    (other / "nix/store" / info.path.base_name / "a").touch()
    with pytest.raises(InputError, match="two files with one name once Nix's case hack is undone"):
        write_layer([info], ZSTD, StoreFiles(other, case_hack=True), io.BytesIO())


@pytest.mark.slow
def test_a_hundred_thousand_files_in_one_path(tmp_path: Path) -> None:
    path = tmp_path / "nix/store/00000000000000000000000000000000-many"
    path.mkdir(parents=True)
    for number in range(100_000):
        os.close(os.open(path / str(number), os.O_CREAT | os.O_WRONLY, 0o444))
    tree: Tree = Directory({b"%d" % number: NarFile(b"") for number in range(100_000)})
    digest, size = nar_hash(tree)
    info = replace(put(tmp_path / "other", "many", NarFile(b"")), nar_hash=digest, nar_size=size)
    info = replace(info, path=StorePath(path.name))
    layer, blob = write(tmp_path, [info])
    assert len(members(decompress(layer, blob))) == 100_003


LARGE = """
import os, sys
from pathlib import Path
from nix_seed.image.assemble import StoreFiles
from nix_seed.image.assemble import assemble_layers
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.core.digests import NarHash
from nix_seed.image.rules.frames import Compressor
root, name, digest, size = sys.argv[1:]
class Nowhere:
    def find(self, key): return None
    def write(self, key, produce):
        with open(os.devnull, "wb") as sink: return produce(sink)
info = PathInfo(StorePath(name), NarHash(digest), int(size), ())
[done] = assemble_layers([[info]], Compressor.at_hand(), StoreFiles(Path(root)), Nowhere())
# Not getrusage, whose figure a child inherits from a large parent.
print(done.layer.tar_size, Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


@pytest.mark.slow
def test_a_file_larger_than_memory_allows_is_streamed(tmp_path: Path) -> None:
    """Sparse, so quick to make; above 2 GiB, so beyond every signed 32-bit counter."""
    size = (1 << 31) + 3
    name = "00000000000000000000000000000000-large"
    path = tmp_path / "nix/store" / name
    path.parent.mkdir(parents=True)
    path.touch()
    os.truncate(path, size)
    ends = nar.MAGIC + nar.file_head(size, False), nar.padding(size) + nar.CLOSE
    sha256 = hashlib.sha256(ends[0])
    for start in range(0, size, 1 << 20):
        sha256.update(bytes(min(1 << 20, size - start)))
    sha256.update(ends[1])
    dumped = size + sum(map(len, ends))
    command = [sys.executable, "-c", LARGE, str(tmp_path), name, sha256.hexdigest(), str(dumped)]
    env = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=env, capture_output=True, check=True, text=True)
    tar_size, peak = map(int, done.stdout.split())
    assert tar_size == 512 * 3 + -(-size // 512) * 512 + 1024
    assert peak < 300_000, f"{peak} KiB"


def test_generic_entries(tmp_path: Path) -> None:
    sink = io.BytesIO()
    layer = write_entries_layer(reversed(ENTRIES), ZSTD, sink)
    archive = decompress(layer, sink.getvalue())
    found = {member.name: member for member in members(archive)}
    assert list(found) == ["bin", "bin/sh", "etc", "etc/passwd", "tmp"]
    assert stat.filemode(found["tmp"].mode) == "?rwxrwxrwt"
    assert found["bin/sh"].linkname == "/nix/store/x/bin/sh"
    assert found["etc/passwd"].size == len(ENTRIES[0].data)


def test_a_layer_of_nothing_or_of_one_path_twice_is_refused(tmp_path: Path) -> None:
    info = put(tmp_path, "x", NarFile(b"x"))
    with pytest.raises(InputError, match="a layer needs at least one store path"):
        write(tmp_path, [])
    with pytest.raises(InputError, match="is given twice for one layer"):
        write(tmp_path, [info, info])


def test_another_compressor_s_version_is_refused(tmp_path: Path) -> None:
    info = put(tmp_path, "x", NarFile(b"x"))
    old = replace(ZSTD, version="1.4.0")
    with pytest.raises(InputError, match=r"the spec wants zstd 1\.4\.0, but 1\.5\.7 is installed"):
        write(tmp_path, [info], old)
    with pytest.raises(InputError, match=r"the spec wants gzip 0\.1, but"):
        write_entries_layer(ENTRIES, replace(GZIP, version="0.1"), io.BytesIO())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"name": "xz", "version": "1", "level": 3}, "compressor 'xz' is unknown"),
        ({"name": "zstd", "version": "1", "level": 20}, "zstd level 20 is not from 1 to 19"),
        ({"name": "zstd", "level": 3}, "spec: version must be a string"),
        ({"name": "zstd", "version": "1", "level": True}, "spec: level must be an integer"),
        ("zstd", "spec: an object is wanted, not str"),
    ],
)
def test_a_compressor_that_cannot_be(value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Compressor.from_json(value, "spec")


@BOTH
def test_a_compressor_reads_back(compressor: Compressor) -> None:
    assert Compressor.from_json(compressor.to_json(), "spec") == compressor
