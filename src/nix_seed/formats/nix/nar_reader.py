"""Reads a NAR as it comes, whoever made it: one entry after another, and no file held whole.

What Nix would refuse is refused here as well: names out of order, names that no directory can hold,
padding that is not zero, and anything that follows the end.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from nix_seed.core.errors import CheckedFalse

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
