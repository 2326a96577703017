"""Tells the project's own source from its inputs'.

Evaluation copies ``./src`` or a filtered source to a store path of its own, which no longer says
where it came from. Its content does: it is the project's if every file of it that is not empty is
also, byte for byte, a file of the flake.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from nix_seed.formats.nix.store_path import StorePath
from nix_seed.ground.errors import CouldNotCheck

__all__ = ["OwnSource"]


class OwnSource:
    """Answers whether a source path holds nothing but the project's own files.

    *source* is the project: its path in the store below *root*, or a directory elsewhere.
    """

    def __init__(self, source: StorePath | Path, root: Path) -> None:
        self._source = f"{root}{source}" if isinstance(source, StorePath) else str(source)
        self._root = root
        self._answers: dict[StorePath, bool] = (
            {source: True} if isinstance(source, StorePath) else {}
        )
        self._sizes: dict[int, list[str]] | None = None
        self._hashes: dict[str, bytes] = {}

    def __call__(self, path: StorePath) -> bool:
        """Tell whether *path*, a source path of some derivation, is the project's."""
        if path not in self._answers:
            self._answers[path] = self._is_copy(path)
        return self._answers[path]

    def _is_copy(self, path: StorePath) -> bool:
        try:
            return self._holds_own_files_only(path)
        except OSError as error:
            raise CouldNotCheck(
                f"cannot read the source {path}: {error.strerror}",
                hint="a garbage collection may have removed it: run the command again",
            ) from error

    def _holds_own_files_only(self, path: StorePath) -> bool:
        found = False
        for name, size in _files(str(self._root) + str(path)):
            if size == 0:
                continue
            if not self._has(name, size):
                return False
            found = True
        return found

    def _has(self, name: str, size: int) -> bool:
        candidates = self._by_size().get(size)
        if not candidates:
            return False
        wanted = self._hash(name)
        return any(self._hash(candidate) == wanted for candidate in candidates)

    def _by_size(self) -> dict[int, list[str]]:
        if self._sizes is None:
            self._sizes = {}
            for name, size in _files(self._source):
                self._sizes.setdefault(size, []).append(name)
        return self._sizes

    def _hash(self, name: str) -> bytes:
        if name not in self._hashes:
            with open(name, "rb") as file:
                self._hashes[name] = hashlib.file_digest(file, "sha256").digest()
        return self._hashes[name]


def _files(top: str) -> Iterator[tuple[str, int]]:
    """Walk the regular files at or below *top* with their sizes in bytes."""
    status = os.lstat(top)
    if not os.path.isdir(top) or os.path.islink(top):
        if os.path.isfile(top) and not os.path.islink(top):
            yield top, status.st_size
        return
    for directory, _, names in os.walk(top):
        for name in names:
            full = os.path.join(directory, name)
            if not os.path.islink(full):
                yield full, os.lstat(full).st_size
