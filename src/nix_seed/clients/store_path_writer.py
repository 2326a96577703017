"""Writes one store path beside its final name, proves its NAR hash, then moves it into place.

Entries must come in the order of a NAR, which is that of the project's layers, so the hash is
computed while they are written; in any other order the hash would not be the one wanted, and
nothing gets its name unless it is.
"""

from __future__ import annotations

import os
from typing import Protocol

from nix_seed.clients.safe_root import apply, open_directory, remove
from nix_seed.clients.tar_reader import Entry, Kind
from nix_seed.formats.nix import nar
from nix_seed.formats.nix.store_path import PathInfo
from nix_seed.ground.digests import NarHash
from nix_seed.ground.errors import CheckedFalse
from nix_seed.rules.path_writer import NarHasher

__all__ = ["PARTIAL", "Body", "StorePathWriter", "place"]

PARTIAL = b".seed-"
"""What the names of unfinished paths in the store begin with."""

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CLOSE_ENTRY = nar.CLOSE + nar.CLOSE
_SMALL = 32 << 10
_TIME = (1, 1)
_CASE_HACK = b"~nix~case~hack~"


class Body(Protocol):
    """The stream that file contents are taken from."""

    def read(self, size: int, /) -> bytes:
        """Return *size* bytes, fewer only at the end."""
        ...

    def take(self, size: int, /) -> memoryview:
        """Return some of the next *size* bytes; empty only at the end."""
        ...


class _Open:
    """A directory that is being filled: what it is below the path, and names taken in it."""

    __slots__ = ("below", "fd", "names")

    def __init__(self, below: bytes, fd: int) -> None:
        self.below = below
        self.fd = fd
        self.names: dict[bytes, int] = {}


class StorePathWriter:
    """Writes the path of *info* into the store open at *store*.

    With *case_hack*, names that differ from an earlier one of their directory only in case get
    Nix's ``~nix~case~hack~`` suffix. The umask must be 0. Call ``finish``, or ``abandon``.
    """

    def __init__(self, info: PathInfo, store: int, body: Body, *, case_hack: bool) -> None:
        self._info = info
        self._store = store
        self._body = body
        self._case_hack = case_hack
        self._name = info.path.base_name.encode()
        self._nar = NarHasher()
        self._nar.add(nar.MAGIC)
        self._open: list[_Open] = []
        self._inside = 0  # directories of the NAR that are open
        self._begun = False

    def entry(self, below: bytes, entry: Entry) -> None:
        """Write one entry; *below* is its place under the store path, empty for the path itself."""
        if not below:
            if self._begun:
                raise self._refuse("is there twice")
            at, name, depth = self._store, PARTIAL + self._name, 0
        else:
            parent, _, base = below.rpartition(b"/")
            at, name, depth = self._enter(parent, base)
        self._begun = True
        if entry.kind is Kind.DIRECTORY:
            self._nar.add(nar.DIRECTORY)
            os.mkdir(name, 0o755, dir_fd=at)
            self._open.append(_Open(below, open_directory(name, at)))
            self._inside = depth + 1
            return
        if entry.kind is Kind.FILE:
            self._file(entry, name, at)
        elif entry.kind is Kind.SYMLINK:
            os.symlink(entry.target, name, dir_fd=at)
            os.utime(name, _TIME, dir_fd=at, follow_symlinks=False)
            self._nar.add(nar.symlink_head(entry.target))
        else:
            raise self._refuse("has a hard link, which layers of store paths do not have")
        self._inside = depth
        if depth:
            self._nar.add(_CLOSE_ENTRY)

    def finish(self) -> None:
        """Check the NAR hash and give the path its name; ``CheckedFalse`` if it is another."""
        while self._open:
            self._leave()
        inside = self._inside
        self._nar.add(nar.CLOSE if inside == 0 else _CLOSE_ENTRY * (inside - 1) + nar.CLOSE)
        found = self._nar.hexdigest()
        if found != self._info.nar_hash.hex:
            raise self._refuse(
                f"has the NAR hash {NarHash(found)}, not {self._info.nar_hash} as its spec says"
            )
        place(self._store, PARTIAL + self._name, self._name)

    def abandon(self) -> None:
        """Remove what was written."""
        while self._open:
            os.close(self._open.pop().fd)
        remove(PARTIAL + self._name, self._store)

    def _enter(self, parent: bytes, base: bytes) -> tuple[int, bytes, int]:
        """Return the open directory *parent*, the name for *base* in it, and its depth."""
        while self._open and self._open[-1].below != parent:
            self._leave()
        if not self._open:
            raise self._refuse(f"has {parent + b'/' + base!r} outside of the order of a NAR")
        here, depth = self._open[-1], len(self._open)
        self._nar.add(_CLOSE_ENTRY * (self._inside - depth) + nar.entry_head(base))
        return here.fd, self._hacked(here.names, base) if self._case_hack else base, depth

    def _hacked(self, names: dict[bytes, int], base: bytes) -> bytes:
        # As Nix does: by ASCII case alone, numbered in the order of the NAR.
        folded = base.lower()
        count = names.get(folded)
        names[folded] = 0 if count is None else count + 1
        return base if count is None else base + _CASE_HACK + b"%d" % (count + 1)

    def _file(self, entry: Entry, name: bytes, at: int) -> None:
        executable = bool(entry.mode & 0o100)
        left = entry.size
        if left > self._info.nar_size:
            raise self._refuse("has a file larger than all of it should be")
        self._nar.add(nar.file_head(left, executable))
        fd = os.open(name, _CREATE, 0o555 if executable else 0o444, dir_fd=at)
        try:
            if left <= _SMALL:
                self._small(fd, left)
            else:
                self._large(fd, left)
            os.utime(fd, _TIME)
        finally:
            os.close(fd)

    def _small(self, fd: int, size: int) -> None:
        data = self._body.read(size)
        if len(data) != size:
            raise self._refuse("ends in the middle of a file")
        if data:
            _write_all(fd, data)
            self._nar.add(data + nar.padding(size))

    def _large(self, fd: int, size: int) -> None:
        left = size
        while left:
            view = self._body.take(left)
            if not view:
                raise self._refuse("ends in the middle of a file")
            _write_all(fd, view)
            self._nar.add_now(view)
            left -= len(view)
        self._nar.add(nar.padding(size))

    def _leave(self) -> None:
        fd = self._open.pop().fd
        apply(fd, 0o555, 1)
        os.close(fd)

    def _refuse(self, problem: str) -> CheckedFalse:
        return CheckedFalse(
            f"{self._info.path} {problem}",
            hint="the image is damaged or was altered: nothing of this path was kept",
        )


def place(store: int, partial: bytes, name: bytes) -> None:
    """Rename *partial* to *name* in the directory *store*, replacing what is not valid there."""
    try:
        os.stat(name, dir_fd=store, follow_symlinks=False)
    except FileNotFoundError:
        pass
    else:
        remove(name, store)
    os.rename(partial, name, src_dir_fd=store, dst_dir_fd=store)


def _write_all(fd: int, data: bytes | memoryview) -> None:
    done = os.write(fd, data)
    if done < len(data):
        view = memoryview(data)[done:]
        while view:
            view = view[os.write(fd, view) :]
