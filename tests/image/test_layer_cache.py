from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck
from nix_seed.core.events import listening
from nix_seed.formats.nix.store_path import PathInfo
from nix_seed.image.assemble import (
    Afresh,
    LayerFinished,
    StoreFiles,
    assemble_layers,
)
from nix_seed.image.layer_cache import LayerCache
from nix_seed.image.rules.frames import Compressor
from nix_seed.image.rules.layer import FinishedLayer
from support.nars import NarFile
from support.programs import first_line
from support.trees import AWKWARD, put

ZSTD = Compressor.at_hand()


@pytest.fixture
def layers(tmp_path: Path) -> list[list[PathInfo]]:
    trees = {"a": AWKWARD, "b": NarFile(b"b" * 9_000_000), "c": NarFile(b"c")}
    return [[put(tmp_path / "root", name, tree)] for name, tree in trees.items()]


def build(
    tmp_path: Path,
    layers: list[list[PathInfo]],
    *,
    reuse: bool = True,
    threads: int = 2,
) -> tuple[LayerFinished, ...]:
    store, cache = StoreFiles(tmp_path / "root"), LayerCache(tmp_path / "cache")
    target = cache if reuse else Afresh(cache)
    return assemble_layers(layers, ZSTD, store, target, threads=threads)


def contents(tmp_path: Path) -> dict[str, bytes]:
    """Every file of the cache, those on their way as well."""
    cache = tmp_path / "cache"
    return {str(p.relative_to(cache)): p.read_bytes() for p in cache.rglob("*") if p.is_file()}


def made(assembled: tuple[LayerFinished, ...]) -> list[FinishedLayer]:
    return [one.layer for one in assembled]


def test_the_second_run_reads_nothing(tmp_path: Path, layers: list[list[PathInfo]]) -> None:
    first = build(tmp_path, layers)
    assert [one.reused for one in first] == [False] * 3
    before = contents(tmp_path)
    assert set(before) == {f"layers/{one.key}.json" for one in first} | {
        f"blobs/{one.layer.descriptor.digest.hex}" for one in first
    }
    # Without its store, only a run that reads none of it can succeed.
    (tmp_path / "root").rename(tmp_path / "gone")
    second = build(tmp_path, layers)
    assert [one.reused for one in second] == [True] * 3
    assert made(second) == made(first)
    assert contents(tmp_path) == before


def test_events(tmp_path: Path, layers: list[list[PathInfo]]) -> None:
    events: list[LayerFinished] = []
    with listening(events.append):
        built = build(tmp_path, layers, threads=1)
    assert events[0] == built[1], "the largest first"
    assert sorted(events, key=built.index) == list(built)
    again: list[LayerFinished] = []
    with listening(again.append):
        kept = build(tmp_path, layers)
    assert sorted(again, key=kept.index) == list(kept)
    assert all(event.reused for event in again)


def test_no_reuse_makes_all_anew(tmp_path: Path, layers: list[list[PathInfo]]) -> None:
    first = build(tmp_path, layers)
    second = build(tmp_path, layers, reuse=False)
    assert [one.reused for one in second] == [False] * 3
    assert made(second) == made(first)


def test_one_changed_layer_is_the_only_one_made(
    tmp_path: Path, layers: list[list[PathInfo]]
) -> None:
    build(tmp_path, layers)
    layers[2] = [put(tmp_path / "root", "c", NarFile(b"changed"))]
    assert [one.reused for one in build(tmp_path, layers)] == [True, True, False]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "remove", "record", "no json", "alien"])
def test_damage_is_found_and_mended(
    tmp_path: Path, layers: list[list[PathInfo]], damage: str
) -> None:
    first = build(tmp_path, layers)
    before = contents(tmp_path)
    cache = tmp_path / "cache"
    blob = LayerCache(cache).blob_path(first[1].layer.descriptor.digest)
    record = cache / "layers" / f"{first[1].key}.json"
    if damage == "flip":
        flip(blob)
    elif damage == "cut":
        os.truncate(blob, 100)
    elif damage == "empty":
        os.truncate(blob, 0)
    elif damage == "remove":
        blob.unlink()
    elif damage == "record":
        os.truncate(record, 30)
    elif damage == "no json":
        record.write_bytes(b"\xff")
    else:
        record.write_text("[]")
    second = build(tmp_path, layers)
    assert [one.reused for one in second] == [True, False, True]
    assert made(second) == made(first)
    assert contents(tmp_path) == before


def test_a_bad_path_leaves_nothing_of_its_layer_and_all_of_the_others(
    tmp_path: Path, layers: list[list[PathInfo]]
) -> None:
    build(tmp_path, [layers[1]])
    before = contents(tmp_path)
    victim = tmp_path / "root/nix/store" / layers[2][0].path.base_name
    victim.chmod(0o644)
    victim.write_bytes(b"d")
    with pytest.raises(CheckedFalse, match="is not what the store's database says"):
        build(tmp_path, layers[1:])
    assert contents(tmp_path) == before


def test_an_error_stops_a_large_layer_under_way(
    tmp_path: Path, layers: list[list[PathInfo]]
) -> None:
    root = tmp_path / "root"
    large = put(root, "large", NarFile(os.urandom(1 << 16) * 4096))
    (root / "nix/store" / layers[2][0].path.base_name).unlink()
    with pytest.raises(CheckedFalse, match="is gone"):
        build(tmp_path, [[large], layers[2]])
    assert contents(tmp_path) == {}


RUN = """
import json, sys
from pathlib import Path
from nix_seed.image.layer_cache import LayerCache
from nix_seed.image.assemble import StoreFiles
from nix_seed.image.assemble import assemble_layers
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.core.digests import NarHash
from nix_seed.image.rules.frames import Compressor
where, *rest = sys.argv[1:]
layers = [[PathInfo(StorePath(p), NarHash(h), int(s), ())] for p, h, s in zip(*[iter(rest)] * 3)]
store, cache = StoreFiles(Path(where, "root")), LayerCache(Path(where, "cache"))
print("ready", flush=True)
done = assemble_layers(layers, Compressor.at_hand(), store, cache, threads=2)
print(*(one.layer.descriptor.digest for one in done))
"""


def start(tmp_path: Path, layers: list[list[PathInfo]]) -> subprocess.Popen[str]:
    arguments = [
        text for [i] in layers for text in (i.path.base_name, i.nar_hash.hex, str(i.nar_size))
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path), *arguments],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert first_line(process) == "ready\n"
    return process


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_leaves_whole_layers_and_the_next_goes_on(
    tmp_path: Path, how: signal.Signals
) -> None:
    noise = os.urandom(1 << 20)
    layers = [
        [put(tmp_path / "root", f"p{number}", NarFile(bytes([number]) + noise * 12))]
        for number in range(6)
    ]
    for wait in (0.0, 0.05, 0.1, 0.2):
        process = start(tmp_path, layers)
        time.sleep(wait)
        process.send_signal(how)
        process.communicate(timeout=60)
        for name, data in contents(tmp_path).items():
            if name.startswith("blobs/") and not name.endswith(".tmp"):
                assert Digest.of(data).hex == name.removeprefix("blobs/")
        if how == signal.SIGINT:
            assert not any(name.endswith(".tmp") for name in contents(tmp_path))
    kept = len(list((tmp_path / "cache").glob("layers/*.json")))
    finished = build(tmp_path, layers)
    assert sum(one.reused for one in finished) == kept
    assert [one.reused for one in build(tmp_path, layers)] == [True] * 6


def test_processes_may_share_it(tmp_path: Path, layers: list[list[PathInfo]]) -> None:
    processes = [start(tmp_path, layers) for _ in range(3)]
    printed = {process.communicate(timeout=60)[0] for process in processes}
    built = build(tmp_path, layers)
    assert printed == {" ".join(str(one.layer.descriptor.digest) for one in built) + "\n"}
    assert [one.reused for one in built] == [True] * 3
    assert len(contents(tmp_path)) == 6


def test_pruning_removes_what_was_used_longest_ago(
    tmp_path: Path, layers: list[list[PathInfo]]
) -> None:
    built = build(tmp_path, layers)
    cache = LayerCache(tmp_path / "cache")
    for age, one in enumerate(built):
        record = tmp_path / "cache/layers" / f"{one.key}.json"
        os.utime(record, (0, 2_000_000_000 - age))
    whole = sum(map(len, contents(tmp_path).values()))
    assert cache.prune(whole) == 0
    assert cache.prune(whole - 1) > 0
    assert [cache.find(one.key) is not None for one in built] == [True, True, False]
    assert sum(map(len, contents(tmp_path).values())) < whole
    cache.prune(0)
    assert contents(tmp_path) == {}


def test_pruning_removes_what_dead_runs_left(tmp_path: Path, layers: list[list[PathInfo]]) -> None:
    build(tmp_path, layers)
    before = contents(tmp_path)
    left = tmp_path / "cache/blobs/.dead.tmp"
    fresh = tmp_path / "cache/blobs/.alive.tmp"
    left.write_bytes(b"half")
    fresh.write_bytes(b"half")
    os.utime(left, (0, 0))
    assert LayerCache(tmp_path / "cache").prune(1 << 40) == 4
    assert contents(tmp_path) == {**before, "blobs/.alive.tmp": b"half"}


def test_a_full_disk_is_said_to_be_one(tmp_path: Path, layers: list[list[PathInfo]]) -> None:
    """A file system of 1 MiB, where one can be mounted."""
    small = tmp_path / "cache"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs: run as root")
    try:
        noise = put(tmp_path / "root", "noise", NarFile(os.urandom(3 << 20)))
        with pytest.raises(CouldNotCheck, match="No space left on device") as caught:
            build(tmp_path, [[noise]])
        assert "the disk is full" in str(caught.value.hint)
        assert contents(tmp_path) == {}
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_cache_that_cannot_be_written_says_where(
    tmp_path: Path, layers: list[list[PathInfo]]
) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(CouldNotCheck, match=r"writing a layer to .*/cache/blobs failed"):
        build(tmp_path, layers)
