"""Finds files that are also in a tree that must not be passed on: copied, whatever they are called.

Short files, and the texts of licences, which free and other works share, are no evidence.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nix_seed.formats.nix.store_path import StorePath
from nix_seed.ground.errors import CouldNotCheck

__all__ = ["LEAST", "Copy", "find_copies"]

LEAST = 256
"""Shorter files, in bytes, are not compared."""

_LICENCE = re.compile(r"(un)?licen[cs]e|copying|copyright|notice|authors", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Copy:
    """*file* in *path* has the bytes of *original*, a file of the withheld path *of*."""

    path: StorePath
    file: str
    of: StorePath
    original: str


def find_copies(
    root: Path, withheld: Iterable[StorePath], among: Mapping[StorePath, frozenset[StorePath]]
) -> list[Copy]:
    """Look for files of *withheld* in each path of *among*, but not for those of its own set there.

    *root* is where the store's ``/nix`` lies. One copy a path is enough to tell.
    """
    originals: dict[int, list[tuple[StorePath, str, str]]] = {}
    for path in withheld:
        for name, size in _files(root, path):
            originals.setdefault(size, []).append((path, _below(name, root, path), name))
    hashes: dict[str, bytes] = {}
    found = []
    for path, without in among.items() if originals else ():
        copy = _first_copy(root, path, without, originals, hashes)
        if copy is not None:
            found.append(copy)
    return found


def _first_copy(
    root: Path,
    path: StorePath,
    without: frozenset[StorePath],
    originals: Mapping[int, list[tuple[StorePath, str, str]]],
    hashes: dict[str, bytes],
) -> Copy | None:
    for name, size in _files(root, path):
        for of, original, file in originals.get(size, ()):
            if of not in without and _hash(name, hashes) == _hash(file, hashes):
                return Copy(path, _below(name, root, path), of, original)
    return None


def _hash(name: str, hashes: dict[str, bytes]) -> bytes:
    if name not in hashes:
        with open(name, "rb") as file:
            hashes[name] = hashlib.file_digest(file, "sha256").digest()
    return hashes[name]


def _files(root: Path, path: StorePath) -> Iterator[tuple[str, int]]:
    top = f"{root}{path}" if str(root) != "/" else str(path)
    try:
        if os.path.isfile(top) and not os.path.islink(top):
            yield from _worth(top)
        for directory, _, names in os.walk(top):
            for name in sorted(names):
                yield from _worth(os.path.join(directory, name))
    except OSError as error:
        raise CouldNotCheck(f"cannot read {path}: {error.strerror}") from error


def _worth(name: str) -> Iterator[tuple[str, int]]:
    size = 0 if os.path.islink(name) else os.path.getsize(name)
    if size >= LEAST and not _LICENCE.match(os.path.basename(name)):
        yield name, size


def _below(name: str, root: Path, path: StorePath) -> str:
    return os.path.relpath(name, f"{root}{path}" if str(root) != "/" else str(path))
