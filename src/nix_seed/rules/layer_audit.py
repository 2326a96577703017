"""Read a layer of store paths back: the NAR hash of each path, and what its tar ought to be.

While entries go by, the tar they would have in canonical form is made and hashed beside them. The
layer is canonical if, and only if, that hash is the diffID of the bytes that came.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from nix_seed.formats.nix import nar
from nix_seed.formats.nix.store_path import STORE_DIR, StorePath
from nix_seed.formats.oci import tar
from nix_seed.ground.digests import DiffID, NarHash
from nix_seed.ground.errors import CheckedFalse, InputError
from nix_seed.rules.path_writer import NarHasher

__all__ = ["AuditedLayer", "LayerAudit"]

_STORE: Final = tuple(STORE_DIR.removeprefix("/").encode().split(b"/"))
_MODES: Final = {tar.FILE: (0o444, 0o555), tar.SYMLINK: (0o777,), tar.DIRECTORY: (0o555,)}


@dataclass(frozen=True, slots=True)
class AuditedLayer:
    """What a layer holds: each path's NAR hash and NAR size; *diff_id* as it ought to be."""

    paths: dict[StorePath, tuple[NarHash, int]]
    diff_id: DiffID


class LayerAudit:
    """Takes the entries of one layer in their order; ``CheckedFalse`` for one out of place."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._tar = hashlib.sha256()
        self._paths: dict[StorePath, tuple[NarHash, int]] = {}
        self._last: tuple[bytes, ...] = ()
        self._path: StorePath | None = None
        self._nar = NarHasher()
        self._open: list[bytes] = []  # the directories of the path that are not closed yet

    def enter(self, kind: bytes, name: bytes, mode: int, size: int, target: bytes) -> None:
        """Take an entry: *name* relative, without a slash at its end; *mode* permission bits."""
        parts = tuple(name.split(b"/"))
        if parts <= self._last:
            raise self._wrong(name, "is not in order")
        self._last = parts
        slash = b"/" if kind == tar.DIRECTORY else b""
        try:
            self._tar.update(tar.header(name + slash, kind, mode, size, target))
        except InputError as error:
            raise self._wrong(name, error.message) from error
        if len(parts) <= len(_STORE):
            if parts != _STORE[: len(parts)] or kind != tar.DIRECTORY or mode != 0o755:
                raise self._wrong(name, "does not belong in a layer of store paths")
            return
        if parts[: len(_STORE)] != _STORE or mode not in _MODES.get(kind, ()):
            raise self._wrong(name, f"has mode {mode:04o}, or lies outside {STORE_DIR}")
        self._node(parts[len(_STORE) :], name, kind, mode, size, target)

    def body(self, piece: bytes) -> None:
        """Take the next bytes of the file last entered."""
        self._tar.update(piece)
        self._nar.add_now(memoryview(piece))

    def end_body(self, size: int) -> None:
        """Close the file of *size* bytes last entered."""
        self._tar.update(tar.padding(size))
        self._nar.add(nar.padding(size) + nar.CLOSE)
        self._leave_entry()

    def finish(self) -> AuditedLayer:
        """Return what the layer held, once its last entry was taken."""
        self._finish_path()
        self._tar.update(tar.END)
        return AuditedLayer(self._paths, DiffID(self._tar.hexdigest()))

    def _node(
        self,
        parts: tuple[bytes, ...],
        name: bytes,
        kind: bytes,
        mode: int,
        size: int,
        target: bytes,
    ) -> None:
        if len(parts) == 1:
            self._begin_path(parts[0], name)
        else:
            self._descend(parts, name)
            self._nar.add(nar.entry_head(parts[-1]))
        if kind == tar.DIRECTORY:
            self._nar.add(nar.DIRECTORY)
            self._open.append(parts[-1])
        elif kind == tar.SYMLINK:
            self._nar.add(nar.symlink_head(target) + nar.CLOSE)
            self._leave_entry()
        else:
            self._nar.add(nar.file_head(size, mode == 0o555))

    def _begin_path(self, base_name: bytes, name: bytes) -> None:
        self._finish_path()
        try:
            self._path = StorePath.parse(f"{STORE_DIR}/{base_name.decode()}")
        except (InputError, UnicodeDecodeError) as error:
            raise self._wrong(name, "is no store path") from error
        self._nar = NarHasher()
        self._nar.add(nar.MAGIC)

    def _descend(self, parts: tuple[bytes, ...], name: bytes) -> None:
        """Close directories down to the parent of *parts*, which must be open."""
        while len(self._open) > len(parts) - 1:
            self._close_directory()
        if tuple(self._open) != parts[:-1]:
            raise self._wrong(name, "comes without its directory")

    def _close_directory(self) -> None:
        self._open.pop()
        self._nar.add(nar.CLOSE)
        self._leave_entry()

    def _leave_entry(self) -> None:
        if self._open:
            self._nar.add(nar.CLOSE)

    def _finish_path(self) -> None:
        if self._path is None:
            return
        while self._open:
            self._close_directory()
        self._paths[self._path] = (NarHash(self._nar.hexdigest()), self._nar.size)

    def _wrong(self, name: bytes, how: str) -> CheckedFalse:
        return CheckedFalse(f"{self._what}: {name.decode(errors='backslashreplace')!r} {how}")
