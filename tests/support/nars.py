"""NARs of trees held in memory: written apart from the product's own, which is held against it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nix_seed.core.digests import NarHash


def _string(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text + padding(len(text))


def padding(size: int) -> bytes:
    """The zeros that follow *size* bytes."""
    return b"\0" * (-size % 8)


MAGIC = _string(b"nix-archive-1")
CLOSE = _string(b")")
_OPEN = _string(b"(") + _string(b"type")
DIRECTORY = _OPEN + _string(b"directory")
_FILE = _OPEN + _string(b"regular") + _string(b"contents")
_PROGRAM = (
    _OPEN + _string(b"regular") + _string(b"executable") + _string(b"") + _string(b"contents")
)
_SYMLINK = _OPEN + _string(b"symlink") + _string(b"target")
_ENTRY = _string(b"entry") + _string(b"(") + _string(b"name")
_NODE = _string(b"node")


def file_head(size: int, executable: bool) -> bytes:
    """A regular file's node up to its *size* bytes; after them ``padding`` and ``CLOSE``."""
    return (_PROGRAM if executable else _FILE) + size.to_bytes(8, "little")


def symlink_head(target: bytes) -> bytes:
    """All of a symlink's node but ``CLOSE``."""
    return _SYMLINK + _string(target)


def entry_head(name: bytes) -> bytes:
    """What precedes the node of a directory's entry; one more ``CLOSE`` follows that node."""
    return _ENTRY + _string(name) + _NODE


@dataclass(frozen=True, slots=True)
class NarFile:
    """A regular file."""

    data: bytes
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link; its target is any bytes."""

    target: bytes


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory; names are bytes, not necessarily UTF-8."""

    entries: Mapping[bytes, Tree]


Tree = NarFile | Symlink | Directory


def dump(tree: Tree) -> Iterator[bytes]:
    """Yield the NAR of *tree* in pieces."""
    yield MAGIC
    yield from _node(tree)


def _node(tree: Tree) -> Iterator[bytes]:
    match tree:
        case NarFile(data, executable):
            yield file_head(len(data), executable)
            yield data
            yield padding(len(data))
        case Symlink(target):
            yield symlink_head(target)
        case Directory(entries):
            yield DIRECTORY
            for name in sorted(entries):
                yield entry_head(name)
                yield from _node(entries[name])
                yield CLOSE
    yield CLOSE


def nar_hash(tree: Tree) -> tuple[NarHash, int]:
    """Return the NAR hash of *tree* and the NAR's size in bytes."""
    sha256, size = hashlib.sha256(), 0
    for piece in dump(tree):
        sha256.update(piece)
        size += len(piece)
    return NarHash(sha256.hexdigest()), size
