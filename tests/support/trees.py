"""Trees as values, on disk, and as store paths: what the assembler's tests read."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from nix_seed.core.digests import encode_nix32
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from support.nars import Directory, NarFile, Symlink, Tree, nar_hash

# All that a store may hold and that tools trip over.
AWKWARD: Tree = Directory(
    {
        b"empty": NarFile(b""),
        b"empty-directory": Directory({}),
        b"program": NarFile(b"#!/bin/sh\n", executable=True),
        b"n" * 255: NarFile(b"a long name"),
        b"d" * 200: Directory({b"e" * 200: Directory({b"f" * 255: NarFile(b"a long path")})}),
        "äöü-日本".encode(): NarFile("größe".encode()),
        b"latin-1-\xe9\xff": NarFile(b"not UTF-8"),
        b"\xff" * 150: NarFile(b"long and not UTF-8"),
        b"two\nlines": NarFile(b"a newline in the name"),
        b" \t-'\"\\*?": NarFile(b"what shells eat"),
        b"dangling": Symlink(b"/nowhere/at all"),
        b"absolute": Symlink(b"/etc/passwd"),
        b"relative": Symlink(b"../.."),
        b"long-target": Symlink(b"t" * 300),
        "ümlaut-target".encode(): Symlink("zü".encode()),
        b"raw-target": Symlink(b"\xfe\xfd"),
        b"a": Directory({b"b": NarFile(b"1")}),
        b"a-": NarFile(b"sorts between a and a/b as text, after both in a walk"),
        b"block": NarFile(b"x" * 512),
        b"not-a-block": NarFile(b"y" * 513),
    }
)


def make(tree: Tree, path: bytes) -> None:
    """Write *tree* at *path* with permissions Nix would change."""
    match tree:
        case NarFile(data, executable):
            with open(path, "wb") as file:
                file.write(data)
            os.chmod(path, 0o744 if executable else 0o640)
        case Symlink(target):
            os.symlink(target, path)
        case Directory(entries):
            os.mkdir(path)
            for name, child in entries.items():
                make(child, path + b"/" + name)


def put(root: Path, name: str, tree: Tree) -> PathInfo:
    """Make *tree* a path of the store under *root*; its hash part is a function of both."""
    digest, size = nar_hash(tree)
    path = StorePath(f"{encode_nix32(digest.raw[:20])}-{name}")
    store = root / "nix/store"
    store.mkdir(parents=True, exist_ok=True)
    make(tree, os.fsencode(store / path.base_name))
    return PathInfo(path, digest, size, ())


def put_all(root: Path, trees: Mapping[str, Tree]) -> list[PathInfo]:
    """Make every tree a store path."""
    return [put(root, name, tree) for name, tree in trees.items()]


def let_others_reach(path: Path) -> None:
    """Let any user pass through to *path*: pytest keeps its directories to itself."""
    for above in (path, *path.parents):
        if not above.stat().st_mode & stat.S_IXOTH:
            above.chmod(above.stat().st_mode | stat.S_IXGRP | stat.S_IXOTH)
