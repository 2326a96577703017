"""NAR, Nix's archive of one file system object (Nix manual, "Nix Archive (NAR) format").

A string is its length (8 bytes, little endian), its bytes, and zeros up to a multiple of eight. A
node is ``( type regular [executable ""] contents DATA )``, ``( type symlink target TARGET )`` or
``( type directory { entry ( name NAME node NODE ) } )``, entries sorted by the bytes of their name.
"""

import hashlib
from typing import Final

from nix_seed.core.digests import NarHash

_CASE_HACK = b"~nix~case~hack~"
# Small pieces are hashed together with their neighbours, to save calls.
_BATCH: Final = 256 << 10


def _string(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text + _padding(len(text))


def _padding(size: int) -> bytes:
    return b"\0" * (-size % 8)


_MAGIC = _string(b"nix-archive-1")
_CLOSE = _string(b")")
_CLOSE_ENTRY = _CLOSE + _CLOSE
_OPEN = _string(b"(") + _string(b"type")
_DIRECTORY = _OPEN + _string(b"directory")
_FILE = _OPEN + _string(b"regular") + _string(b"contents")
_PROGRAM = (
    _OPEN + _string(b"regular") + _string(b"executable") + _string(b"") + _string(b"contents")
)
_SYMLINK = _OPEN + _string(b"symlink") + _string(b"target")
_ENTRY = _string(b"entry") + _string(b"(") + _string(b"name")
_NODE = _string(b"node")


class NarHasher:
    """SHA-256 and *size* of the NAR of one tree, whose nodes come in the order of a NAR.

    Each comes with its *depth*, 0 for the tree itself, and its *name*, which is then passed over. A
    file's content follows it, in any pieces, and then ``end_file``.
    """

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._pieces = [_MAGIC]
        self._waiting = len(_MAGIC)
        self._inside = 0  # directories that are open
        self.size = 0

    def directory(self, depth: int, name: bytes) -> None:
        """Begin a directory; what is deeper is in it."""
        self._begin(depth, name)
        self.add(_DIRECTORY)
        self._inside = depth + 1

    def symlink(self, depth: int, name: bytes, target: bytes) -> None:
        """Take a symlink."""
        self._begin(depth, name)
        self.add(_SYMLINK + _string(target))
        self._end()

    def file(self, depth: int, name: bytes, size: int, executable: bool) -> None:
        """Begin a file of *size* bytes."""
        self._begin(depth, name)
        self.add((_PROGRAM if executable else _FILE) + size.to_bytes(8, "little"))

    def end_file(self, size: int) -> None:
        """End the file of *size* bytes."""
        self.add(_padding(size))
        self._end()

    def add(self, piece: bytes) -> None:
        """Append *piece*, to be hashed with its neighbours."""
        self._pieces.append(piece)
        self._waiting += len(piece)
        if self._waiting >= _BATCH:
            self._flush()

    def add_now(self, view: memoryview) -> None:
        """Hash *view* before returning: its memory is about to be used again."""
        self._flush()
        self._sha256.update(view)
        self.size += len(view)

    def finish(self) -> NarHash:
        """End the tree, whose nodes all came, and return its NAR hash."""
        inside = self._inside
        self.add(_CLOSE if inside == 0 else _CLOSE_ENTRY * (inside - 1) + _CLOSE)
        self._flush()
        return NarHash(self._sha256.hexdigest())

    def _begin(self, depth: int, name: bytes) -> None:
        if depth:
            self.add(_CLOSE_ENTRY * (self._inside - depth) + _ENTRY + _string(name) + _NODE)
        self._inside = depth

    def _end(self) -> None:
        if self._inside:
            self.add(_CLOSE_ENTRY)

    def _flush(self) -> None:
        self._sha256.update(b"".join(self._pieces))
        self.size += self._waiting
        self._pieces.clear()
        self._waiting = 0


def strip_case_hack(name: bytes) -> bytes:
    """The name Nix archives for a file that macOS made it call ``name~nix~case~hack~1``."""
    return name.partition(_CASE_HACK)[0]


def nar_hash_of_file(data: bytes) -> NarHash:
    """The NAR hash of a regular, not executable file that holds *data*."""
    nar = NarHasher()
    nar.file(0, b"", len(data), executable=False)
    nar.add(data)
    nar.end_file(len(data))
    return nar.finish()
