"""One store path, read once: into the tar, and through its NAR hash to see that it is the path."""

from __future__ import annotations

import hashlib
from typing import Final

from nix_seed.formats.nix import nar
from nix_seed.formats.nix.store_path import STORE_DIR, PathInfo, StorePath
from nix_seed.formats.oci import tar
from nix_seed.ground.digests import NarHash
from nix_seed.ground.errors import CheckedFalse
from nix_seed.rules.frames import FrameWriter
from nix_seed.rules.store_reader import DIRECTORY, FILE, Node, StoreReader

__all__ = ["NarHasher", "write_path"]

# Files up to this size are hashed together with their neighbours, to save calls.
_SMALL: Final = 32 << 10
_BATCH: Final = 256 << 10
_READ: Final = 512 << 10
_CLOSE_ENTRY: Final = nar.CLOSE + nar.CLOSE
_STORE: Final = STORE_DIR.removeprefix("/").encode() + b"/"


class NarHasher:
    """SHA-256 and size of a NAR that arrives in many small pieces and a few large ones."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._pieces: list[bytes] = []
        self._waiting = 0
        self.size = 0

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

    def hexdigest(self) -> str:
        """Return the SHA-256 of all that was added, in hex."""
        self._flush()
        return self._sha256.hexdigest()

    def _flush(self) -> None:
        self._sha256.update(b"".join(self._pieces))
        self.size += self._waiting
        self._pieces.clear()
        self._waiting = 0


def write_path(info: PathInfo, store: StoreReader, out: FrameWriter) -> None:
    """Append the tar entries of *info*'s path to *out*.

    Raises ``CheckedFalse`` if what was read is not what *info* says; then all of the blob is void.
    """
    writer = _PathWriter(info.path, store, out)
    writer.write()
    _check(info, writer.nar)


class _PathWriter:
    def __init__(self, path: StorePath, store: StoreReader, out: FrameWriter) -> None:
        self._path = path
        self._root = _STORE + path.base_name.encode()
        self._store = store
        self._out = out
        self.nar = NarHasher()

    def write(self) -> None:
        add = self.nar.add
        add(nar.MAGIC)
        inside = 0  # how many directories of the NAR are open
        for node in self._store.walk(self._path):
            depth = node.depth
            if depth:
                add(_CLOSE_ENTRY * (inside - depth) + nar.entry_head(node.name))
            if node.kind == DIRECTORY:
                self._write_directory(node)
                inside = depth + 1
                continue
            if node.kind == FILE:
                self._write_file(node)
            else:
                self._write_symlink(node)
            inside = depth
            if depth:
                add(_CLOSE_ENTRY)
        add(nar.CLOSE if inside == 0 else _CLOSE_ENTRY * (inside - 1) + nar.CLOSE)

    def _write_directory(self, node: Node) -> None:
        self._out.put(tar.header(self._root + node.below + b"/", tar.DIRECTORY, 0o555))
        self.nar.add(nar.DIRECTORY)

    def _write_symlink(self, node: Node) -> None:
        name = self._root + node.below
        self._out.put(tar.header(name, tar.SYMLINK, 0o777, target=node.target))
        self.nar.add(nar.symlink_head(node.target))

    def _write_file(self, node: Node) -> None:
        size = node.size
        mode = 0o555 if node.executable else 0o444
        self._out.put(tar.header(self._root + node.below, tar.FILE, mode, size))
        self.nar.add(nar.file_head(size, node.executable))
        if size:
            handle = self._store.open(self._path, node)
            try:
                self._copy(node, handle)
            finally:
                self._store.close(handle)
            self._out.put(tar.padding(size))
            self.nar.add(nar.padding(size))

    def _copy(self, node: Node, handle: int) -> None:
        left = node.size
        while left:
            view = self._out.room()[: min(left, _READ)]
            count = self._store.read(handle, view)
            if count == 0:
                name = node.below.decode(errors="replace") or "it"
                raise _changed(self._path, f"{name} became shorter while it was read")
            if count <= _SMALL:
                self.nar.add(bytes(view[:count]))
            else:
                self.nar.add_now(view[:count])
            self._out.advance(count)
            left -= count


def _check(info: PathInfo, nar_hash: NarHasher) -> None:
    found = nar_hash.hexdigest()
    if nar_hash.size != info.nar_size:
        raise _changed(
            info.path, f"its NAR has {nar_hash.size} bytes where Nix recorded {info.nar_size}"
        )
    if found != info.nar_hash.hex:
        raise _changed(
            info.path, f"its NAR hash is {NarHash(found)} where Nix recorded {info.nar_hash}"
        )


def _changed(path: StorePath, how: str) -> CheckedFalse:
    return CheckedFalse(
        f"{path} is not what the store's database says: {how}",
        hint="the store changed, now or since the path was made: `nix-store --verify"
        " --check-contents --repair` restores it; then run this again",
    )
