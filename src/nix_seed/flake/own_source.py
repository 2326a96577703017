"""Whose a source is, by its content."""

import hashlib
import os
from collections.abc import Collection, Iterator
from itertools import chain
from pathlib import Path

from nix_seed.core.errors import CouldNotCheck
from nix_seed.core.files import files_below
from nix_seed.formats.nix.store_path import StorePath


class OwnSource:
    """Answers whether a source path holds nothing but the project's own files.

    Evaluation copies ``./src`` or a filtered source to a store path of its own, which no longer
    says where it came from. Its content does: it is the project's if every file of it that is not
    empty is also, byte for byte, a file of the flake.

    *source* is the project: its path in the store below *root*, or a directory elsewhere. With
    *more* trees, what is made of their files is told too, and so is what holds only empty files.
    """

    def __init__(self, source: StorePath | Path, root: Path, more: Collection[str] = ()) -> None:
        own = f"{root}{source}" if isinstance(source, StorePath) else str(source)
        self._sources = (own, *more)
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

    def names_in(self, path: StorePath) -> Iterator[frozenset[str]]:
        """Yield, of each file of *path* that is not empty, its names there and in the project."""
        top = f"{self._root}{path}"
        for name in files_below(top):
            size = os.lstat(name).st_size
            if size:
                own = path.name if name == top else os.path.basename(name)
                yield frozenset({own, *map(os.path.basename, self._like(name, size))})

    def _is_copy(self, path: StorePath) -> bool:
        try:
            return self._holds_own_files_only(path)
        except OSError as error:
            raise CouldNotCheck(
                f"cannot read the source {path}: {error.strerror}",
                hint="a garbage collection may have removed it: run the command again",
            ) from error

    def _holds_own_files_only(self, path: StorePath) -> bool:
        found = len(self._sources) > 1
        for name in files_below(f"{self._root}{path}"):
            size = os.lstat(name).st_size
            if size == 0:
                continue
            if not any(self._like(name, size)):
                return False
            found = True
        return found

    def _like(self, name: str, size: int) -> Iterator[str]:
        """Yield the project's files that hold the same bytes."""
        for candidate in self._by_size().get(size, ()):
            if self._hash(candidate) == self._hash(name):
                yield candidate

    def _by_size(self) -> dict[int, list[str]]:
        if self._sizes is None:
            self._sizes = {}
            for name in chain.from_iterable(map(files_below, self._sources)):
                self._sizes.setdefault(os.lstat(name).st_size, []).append(name)
        return self._sizes

    def _hash(self, name: str) -> bytes:
        if name not in self._hashes:
            with open(name, "rb") as file:
                self._hashes[name] = hashlib.file_digest(file, "sha256").digest()
        return self._hashes[name]
