"""Unpack one layer into a directory of its own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from nix_seed.clients.safe_root import DirectoryWriter, open_directory, walk
from nix_seed.clients.tar_reader import Entry, Kind, read_entries
from nix_seed.ground.errors import CheckedFalse

__all__ = ["Unpacked", "link", "unpack_layer"]

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What a layer asks of the layers below it, besides the files it brings.

    *whiteouts* are paths to remove below, *opaque* directories to empty below, *links* hard links
    (path, target) into lower layers, *implicit* directories that had no entry of their own.
    """

    directory: Path
    entries: int
    whiteouts: tuple[bytes, ...]
    opaque: tuple[bytes, ...]
    links: tuple[tuple[bytes, bytes], ...]
    implicit: frozenset[bytes]
    explicit_root: bool


def unpack_layer(stream: BinaryIO, directory: Path, what: str, limit: int) -> Unpacked:
    """Write the tar *stream* into the empty *directory*; at most *limit* entries.

    Ownership is that of the caller: layers of the project know only uid 0, and a build image needs
    no other. Raises ``CheckedFalse`` for what a layer may not hold.
    """
    root = open_directory(directory)
    try:
        return _Layer(root, stream, what).run(directory, limit)
    finally:
        os.close(root)


class _Layer:
    def __init__(self, root: int, stream: BinaryIO, what: str) -> None:
        self._root = root
        self._stream = stream
        self._what = what
        self._directories = DirectoryWriter(root, what)
        self._mask = _umask()
        self._whiteouts: list[bytes] = []
        self._opaque: list[bytes] = []
        self._links: list[tuple[bytes, bytes]] = []

    def run(self, directory: Path, limit: int) -> Unpacked:
        count = 0
        for entry in read_entries(self._stream, self._what):
            count += 1
            if count > limit:
                raise CheckedFalse(f"{self._what}: has more than {limit} entries")
            self._write(entry)
        self._directories.close()
        return Unpacked(
            directory,
            count,
            tuple(self._whiteouts),
            tuple(self._opaque),
            tuple(self._links),
            frozenset(self._directories.implicit),
            b"" in self._directories.explicit,
        )

    def _write(self, entry: Entry) -> None:
        if entry.kind is Kind.DIRECTORY:
            self._directories.directory(entry.name, entry.mode, _time(entry.mtime))
            return
        parent, _, base = entry.name.rpartition(b"/")
        if not base:
            raise CheckedFalse(f"{self._what}: replaces its root by something else")
        if base.startswith(_WHITEOUT):
            self._white_out(parent, base)
            return
        at = self._directories.enter(parent)
        try:
            self._make(entry, base, at)
        except FileExistsError:
            shown = entry.name.decode("utf-8", "backslashreplace")
            raise CheckedFalse(f"{self._what}: {shown!r} is there twice") from None

    def _make(self, entry: Entry, base: bytes, at: int) -> None:
        if entry.kind is Kind.FILE:
            self._file(entry, base, at)
        elif entry.kind is Kind.SYMLINK:
            os.symlink(entry.target, base, dir_fd=at)
            _touch_link(base, at, entry.mtime)
        elif not link(self._root, entry.target, base, at):
            self._links.append((entry.name, entry.target))

    def _file(self, entry: Entry, base: bytes, at: int) -> None:
        fd = os.open(base, _CREATE, entry.mode, dir_fd=at)
        try:
            left = entry.size
            while left:
                data = self._stream.read(min(left, _CHUNK))
                if not data:
                    raise CheckedFalse(f"{self._what}: ends in the middle of a file")
                _write_all(fd, data)
                left -= len(data)
            if entry.mode & (self._mask | 0o1000):
                os.fchmod(fd, entry.mode)
            os.utime(fd, (_time(entry.mtime),) * 2)
        finally:
            os.close(fd)

    def _white_out(self, parent: bytes, base: bytes) -> None:
        if base == _OPAQUE:
            self._opaque.append(parent)
            return
        name = base[len(_WHITEOUT) :]
        if name in (b"", b".", b"..") or name.startswith(_WHITEOUT):
            raise CheckedFalse(f"{self._what}: has the whiteout {base!r}, which names no file")
        self._whiteouts.append(parent + b"/" + name if parent else name)


def link(root: int, target: bytes, base: bytes, at: int) -> bool:
    """Hard-link *base* in *at* to *target* below *root*; whether the target is there."""
    parent, _, name = target.rpartition(b"/")
    try:
        with walk(root, parent) as source:
            os.link(name, base, src_dir_fd=source, dst_dir_fd=at, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:
        # A symlink on the way (ELOOP) and a directory as target (EPERM) come here, too: the layers
        # below cannot have the target either, and the merge then refuses it by name.
        return False
    return True


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _touch_link(base: bytes, at: int, mtime: int) -> None:
    os.utime(base, (_time(mtime),) * 2, dir_fd=at, follow_symlinks=False)


def _time(mtime: int) -> int:
    return min(max(mtime, 0), 1 << 33)


def _umask() -> int:
    # Read, not set and set back: the umask is the whole process's, and threads are at work.
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o777
