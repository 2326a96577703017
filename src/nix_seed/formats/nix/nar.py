"""NAR, Nix's archive of one file system object (Nix manual, "Nix Archive (NAR) format").

A string is its length (8 bytes, little endian), its bytes, and zeros up to a multiple of eight. A
node is ``( type regular [executable ""] contents DATA )``, ``( type symlink target TARGET )`` or
``( type directory { entry ( name NAME node NODE ) } )``, entries sorted by the bytes of their name.

Reads a NAR as it comes, whoever made it: one entry after another, and no file held whole.

What Nix would refuse is refused here as well: names out of order, names that no directory can hold,
padding that is not zero, and anything that follows the end.
"""

import hashlib
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, Literal

from nix_seed.core.digests import NarHash
from nix_seed.core.errors import CheckedFalse
from nix_seed.core.values import dataclass

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


class NarWriter:
    """Gives the NAR of one tree, whose nodes come in the order of a NAR, to *take* in pieces.

    Each comes with its *depth*, 0 for the tree itself, and its *name*, which is then passed over. A
    file's content follows it, in any pieces, and then ``end_file``. *size* counts bytes.
    """

    def __init__(self, take: Callable[[bytes | memoryview], object]) -> None:
        self._take = take
        self._pieces = [_MAGIC]
        self._waiting = len(_MAGIC)
        self._inside = 0  # directories that are open
        self.size = 0

    def directory(self, depth: int, name: bytes) -> None:
        """Begin a directory; what is deeper is in it."""
        self.add(self._begun(depth, name) + _DIRECTORY)
        self._inside = depth + 1

    def symlink(self, depth: int, name: bytes, target: bytes) -> None:
        """Take a symlink."""
        self.add(self._begun(depth, name) + _SYMLINK + _string(target) + self._ended())

    def file(self, depth: int, name: bytes, size: int, executable: bool) -> None:
        """Begin a file of *size* bytes."""
        kind = _PROGRAM if executable else _FILE
        self.add(self._begun(depth, name) + kind + size.to_bytes(8, "little"))

    def end_file(self, size: int) -> None:
        """End the file of *size* bytes."""
        self.add(_padding(size) + self._ended())

    def add(self, piece: bytes) -> None:
        """Append *piece*, to be taken with its neighbours."""
        self._pieces.append(piece)
        self._waiting += len(piece)
        if self._waiting >= _BATCH:
            self._flush()

    def add_now(self, view: memoryview) -> None:
        """Have *view* taken before returning: its memory is about to be used again."""
        self._flush()
        self._take(view)
        self.size += len(view)

    def end(self) -> None:
        """End the tree, whose nodes all came."""
        inside = self._inside
        self.add(_CLOSE if inside == 0 else _CLOSE_ENTRY * (inside - 1) + _CLOSE)
        self._flush()

    def _begun(self, depth: int, name: bytes) -> bytes:
        inside, self._inside = self._inside, depth
        return _CLOSE_ENTRY * (inside - depth) + _ENTRY + _string(name) + _NODE if depth else b""

    def _ended(self) -> bytes:
        return _CLOSE_ENTRY if self._inside else b""

    def _flush(self) -> None:
        self._take(b"".join(self._pieces))
        self.size += self._waiting
        self._pieces.clear()
        self._waiting = 0


class NarHasher(NarWriter):
    """SHA-256 and *size* of the NAR of one tree."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        super().__init__(self._sha256.update)

    def finish(self) -> NarHash:
        """End the tree, whose nodes all came, and return its NAR hash."""
        self.end()
        return NarHash(self._sha256.hexdigest())


def strip_case_hack(name: bytes) -> bytes:
    """The name Nix archives for a file that macOS made it call ``name~nix~case~hack~1``."""
    return name.partition(_CASE_HACK)[0]


def hash_tree(top: Path) -> NarHash:
    """The NAR hash of the file, link or directory *top*, as ``dump_tree`` reads it."""
    state = hashlib.sha256()
    for piece in dump_tree(top):
        state.update(piece)
    return NarHash(state.hexdigest())


def dump_tree(top: Path) -> Iterator[bytes | memoryview]:
    """Yield the NAR of the file, link or directory *top*; ``OSError`` where it cannot be read.

    On macOS names are taken without the case hack, as Nix does.
    """
    pieces: list[bytes | memoryview] = []
    nar, hacked = NarWriter(pieces.append), sys.platform == "darwin"
    waiting = [(0, b"", os.fsencode(top))]
    while waiting:
        depth, name, path = waiting.pop()
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            nar.symlink(depth, name, os.readlink(path))
        elif stat.S_ISDIR(found.st_mode):
            nar.directory(depth, name)
            here = [(strip_case_hack(each) if hacked else each, each) for each in os.listdir(path)]
            waiting += [
                (depth + 1, plain, os.path.join(path, each))
                for plain, each in sorted(here, reverse=True)
            ]
        elif stat.S_ISREG(found.st_mode):
            with open(path, "rb", buffering=0) as file:
                nar.file(depth, name, found.st_size, bool(found.st_mode & 0o100))
                left = found.st_size
                while left and (data := file.read(min(left, _BATCH))):
                    nar.add(data)
                    left -= len(data)
                    yield from pieces
                    pieces.clear()
            if left:
                raise OSError(f"{os.fsdecode(path)} became shorter while it was read")
            nar.end_file(found.st_size)
        else:
            raise OSError(f"{os.fsdecode(path)} is neither a file, a directory nor a link")
    nar.end()
    yield from pieces


def nar_hash_of_file(data: bytes) -> NarHash:
    """The NAR hash of a regular, not executable file that holds *data*."""
    nar = NarHasher()
    nar.file(0, b"", len(data), executable=False)
    nar.add(data)
    nar.end_file(len(data))
    return nar.finish()


_LONGEST_WORD: Final = 32
_LONGEST_NAME: Final = 255
_LONGEST_TARGET: Final = 4096
_DEEPEST: Final = 256
_STEP: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class NarEntry:
    """One file system object: *path* is empty for the root, names are joined by ``/``.

    *digest* is the SHA-256 of a file's *size* bytes or of a symlink's target, *head* its first
    bytes: as many as were asked for.
    """

    path: bytes
    kind: Literal["file", "program", "symlink", "directory"]
    size: int = 0
    digest: bytes = b""
    head: bytes = b""


def read_nar(chunks: Iterable[bytes], what: str, head: int = 0) -> Iterator[NarEntry]:
    """Yield the entries of the NAR that *chunks* are, parents first, in its order.

    ``CheckedFalse`` for what is no NAR; what was yielded until then proves nothing.
    """
    reader = _Reader(chunks, what)
    reader.expect(b"nix-archive-1")
    yield from _node(reader, b"", head, 0)
    reader.end()


class _Reader:
    def __init__(self, chunks: Iterable[bytes], what: str) -> None:
        self._chunks = iter(chunks)
        self._what = what
        self._held = b""

    def refuse(self, why: str) -> CheckedFalse:
        return CheckedFalse(f"{self._what} is no NAR: {why}")

    def some(self, most: int) -> bytes:
        while not self._held:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise self.refuse("it is cut short")
            self._held = chunk
        taken, self._held = self._held[:most], self._held[most:]
        return taken

    def exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            found += self.some(size - len(found))
        return found

    def number(self) -> int:
        return int.from_bytes(self.exactly(8), "little")

    def padding(self, size: int) -> None:
        if any(self.exactly(-size % 8)):
            raise self.refuse("its padding is not zero")

    def word(self, longest: int = _LONGEST_WORD) -> bytes:
        size = self.number()
        if size > longest:
            raise self.refuse(f"a string of {size} bytes where {longest} are the most")
        found = self.exactly(size)
        self.padding(size)
        return found

    def expect(self, *words: bytes) -> None:
        for word in words:
            found = self.word()
            if found != word:
                raise self.refuse(f"{found!r} where {word!r} is wanted")

    def end(self) -> None:
        if self._held or any(self._chunks):
            raise self.refuse("something follows its end")


def _node(reader: _Reader, path: bytes, head: int, depth: int) -> Iterator[NarEntry]:
    reader.expect(b"(", b"type")
    kind = reader.word()
    if kind == b"regular":
        yield _file(reader, path, head)
        reader.expect(b")")
    elif kind == b"symlink":
        reader.expect(b"target")
        target = reader.word(_LONGEST_TARGET)
        digest = hashlib.sha256(target).digest()
        yield NarEntry(path, "symlink", len(target), digest, target[:head])
        reader.expect(b")")
    elif kind == b"directory":
        yield NarEntry(path, "directory")
        if depth >= _DEEPEST:
            raise reader.refuse(f"directories lie more than {_DEEPEST} deep")
        yield from _entries(reader, path, head, depth)
    else:
        raise reader.refuse(f"an object of the type {kind!r}")


def _entries(reader: _Reader, path: bytes, head: int, depth: int) -> Iterator[NarEntry]:
    before = b""
    while (word := reader.word()) != b")":
        if word != b"entry":
            raise reader.refuse(f"{word!r} where an entry is wanted")
        reader.expect(b"(", b"name")
        name = reader.word(_LONGEST_NAME)
        if name in (b"", b".", b"..") or b"/" in name or b"\0" in name or name <= before:
            raise reader.refuse(f"the name {name!r}, after {before!r}")
        before = name
        reader.expect(b"node")
        yield from _node(reader, path + b"/" + name if path else name, head, depth + 1)
        reader.expect(b")")


def _file(reader: _Reader, path: bytes, head: int) -> NarEntry:
    word = reader.word()
    program = word == b"executable"
    if program:
        reader.expect(b"")
        word = reader.word()
    if word != b"contents":
        raise reader.refuse(f"{word!r} where a file's contents are wanted")
    size = left = reader.number()
    state, begun = hashlib.sha256(), b""
    while left:
        chunk = reader.some(min(left, _STEP))
        state.update(chunk)
        begun += chunk[: max(0, head - len(begun))]
        left -= len(chunk)
    reader.padding(size)
    return NarEntry(path, "program" if program else "file", size, state.digest(), begun)
