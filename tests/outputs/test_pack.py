"""NARs as they are pushed: read from the store by us, checked, and as Nix archives them."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck
from nix_seed.flake.nix import Nix
from nix_seed.formats.nix.nar import dump_tree
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.formats.zstd import FOOTER_SIZE, SeekTable
from nix_seed.image.rules.frames import FRAME_SIZE, Alone, Compressor, FrameWriter
from nix_seed.outputs.nar import checked, pack, unpack_nar
from nix_seed.outputs.rules.kept import NAR_TYPE, Stored
from nix_seed.registry.layout import Layout
from nix_seed.registry.layout_store import LayoutStore
from support.nars import Directory, NarFile, Symlink, Tree, dump, nar_hash
from support.registries import needs

PATH = StorePath.parse(f"/nix/store/{'0' * 32}-p")
LARGE = os.urandom(FRAME_SIZE + 1)
TREES: dict[str, Tree] = {
    "a file": NarFile(b"text\n"),
    "nothing": NarFile(b""),
    "a program": NarFile(b"#!/bin/sh\n", executable=True),
    "a link": Symlink(b"../elsewhere"),
    "an empty directory": Directory({}),
    "a tree": Directory(
        {
            b"bin": Directory({b"b": NarFile(b"b" * 9), b"\xff": NarFile(b"odd name")}),
            b"bin-": NarFile(b"sorted by bytes"),
            b"l": Symlink(b"bin/b"),
        }
    ),
    "more than a frame": Directory({b"large": NarFile(LARGE), b"small": NarFile(b"x")}),
}


def write(tree: Tree, at: Path) -> None:
    if isinstance(tree, NarFile):
        at.write_bytes(tree.data)
        at.chmod(0o555 if tree.executable else 0o444)
    elif isinstance(tree, Symlink):
        os.symlink(tree.target, at)
    else:
        at.mkdir()
        for name, entry in tree.entries.items():
            write(entry, Path(os.fsdecode(os.path.join(os.fsencode(at), name))))


class Scene:
    """A store with one path in it, and a layout."""

    def __init__(self, root: Path, tree: Tree) -> None:
        self.nix, self.top = Nix(store=root), root / str(PATH).lstrip("/")
        self.top.parent.mkdir(parents=True)
        write(tree, self.top)
        self.info = PathInfo(PATH, *nar_hash(tree), ())
        self.store = LayoutStore(Layout.create(root / "kept"))

    def pack(self, *, expected: bool = False) -> tuple[Stored, int]:
        packed = pack(self.store, self.info, self.nix, expected=expected)
        return packed.blob, packed.sent

    def blob(self, stored: Stored) -> bytes:
        return b"".join(self.store.open_blob(stored.descriptor(NAR_TYPE)))


@pytest.mark.parametrize("name", TREES)
def test_what_is_packed_is_what_nix_archives(name: str, tmp_path: Path) -> None:
    scene = Scene(tmp_path, TREES[name])
    stored, sent = scene.pack()
    blob = scene.blob(stored)
    assert (Digest.of(blob), len(blob), sent) == (stored.digest, stored.size, stored.size)
    assert b"".join(unpack_nar([blob], scene.info, "it")) == b"".join(dump(TREES[name]))
    command: list[str | Path] = [needs("nix-store", "nix-bin"), "--dump", scene.top]
    archived = subprocess.run(command, capture_output=True, check=True).stdout
    assert b"".join(dump_tree(scene.top)) == archived
    if scene.info.nar_size <= FRAME_SIZE:
        assert blob == zstandard.ZstdCompressor(level=3).compress(archived), "one frame, no table"
    else:
        size = SeekTable.size_from_footer(blob[-FOOTER_SIZE:], "it")
        table = SeekTable.parse(blob[-size:], "it")
        assert [frame.size for frame in table.frames] == [FRAME_SIZE, len(archived) - FRAME_SIZE]
    assert scene.pack(expected=True) == (stored, 0)


@pytest.mark.parametrize("name", TREES)
def test_a_blob_of_an_earlier_version_is_read(name: str, tmp_path: Path) -> None:
    """It has a seek table, behind a single frame too."""
    scene, chunks = Scene(tmp_path, TREES[name]), list[bytes]()

    class Sink:
        def write(self, data: bytes, /) -> None:
            chunks.append(data)

    with FrameWriter(Compressor.at_hand(), Sink(), Alone()) as writer:
        for piece in dump(TREES[name]):
            writer.put(piece)
        writer.finish()
    blob = b"".join(chunks)
    SeekTable.parse(blob[-SeekTable.size_from_footer(blob[-FOOTER_SIZE:], "it") :], "it")
    assert b"".join(unpack_nar([blob], scene.info, "it")) == b"".join(dump(TREES[name]))
    assert b"".join(checked([blob[:50], blob[50:]], scene.info, "it")) == blob


@pytest.mark.parametrize("name", ["a file", "more than a frame"])
def test_what_is_not_as_nix_recorded_it_is_not_sent(name: str, tmp_path: Path) -> None:
    scene = Scene(tmp_path, TREES[name])
    blobs = tmp_path / "kept/blobs"
    right = scene.info
    for change in ({"nar_size": right.nar_size - 8}, {"nar_hash": nar_hash(TREES["a link"])[0]}):
        scene.info = replace(right, **change)
        with pytest.raises(CheckedFalse, match="and Nix's database says"):
            scene.pack()
    scene.info = right
    target = scene.top / "large" if scene.top.is_dir() else scene.top
    target.chmod(0o644)
    with target.open("ab") as file:
        file.write(b"changed")
    with pytest.raises(CheckedFalse, match="and Nix's database says"):
        scene.pack()
    assert [path for path in blobs.rglob("*") if path.is_file()] == []


def test_what_is_gone_or_is_no_file_is_said(tmp_path: Path) -> None:
    scene = Scene(tmp_path, TREES["a file"])
    scene.top.unlink()
    with pytest.raises(CouldNotCheck, match=f"archiving {PATH} failed"):
        scene.pack()
    os.mkfifo(scene.top)
    with pytest.raises(CouldNotCheck, match="is neither a file, a directory nor a link"):
        scene.pack()


@pytest.mark.parametrize("step", [1 << 30, 1 << 16])
@pytest.mark.parametrize("size", [100, 1 << 20, 5 << 20])
def test_the_end_of_another_nar_never_leaves(size: int, step: int) -> None:
    """Also where one read of the decoder takes all of it, and so meets the end."""
    blob = zstandard.compress(os.urandom(size))
    info, left = PathInfo(PATH, nar_hash(TREES["a file"])[0], size, ()), list[bytes]()
    chunks = [blob[at : at + step] for at in range(0, len(blob), step)]
    with pytest.raises(CheckedFalse, match="it is another NAR"):
        left.extend(checked(chunks, info, "it"))
    assert left == chunks[: len(left)]
    assert len(left) < len(chunks)
