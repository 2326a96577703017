"""Finds files that are also in a tree that must not be passed on: copied, whatever they are called.

Short files, and the texts of licences, which free and other works share, are no evidence.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nix_seed.core.errors import CouldNotCheck
from nix_seed.core.files import files_below
from nix_seed.formats.nix.store_path import StorePath

LEAST = 256
"""Shorter files, in bytes, are not compared."""

# Longer ones hold more than licences. And what no text holds, in whatever encoding.
_LONGEST = 1 << 20
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")

# LICENSE, LICENSE-MIT, COPYING.LESSER, LICENSE_1_0.txt, NOTICE.md; not licensed, nor license.py.
_LICENCE = re.compile(
    r"((un)?licen[cs]es?|copying|copyrights?|notices?|authors)"
    r"[0-9]*([-_ ][a-z0-9_+ -]*(\.[0-9][a-z0-9_+-]*)*)?"
    r"(\.(lesser|lib|[al]?gpl|(?-i:[A-Z][A-Za-z0-9_+-]*)))?"
    r"(\.(txt|text|md|markdown|rst|adoc|html?))?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Copy:
    """*file* in *path* has the bytes of *original*, a file of the withheld path *of*."""

    path: StorePath
    file: str
    of: StorePath
    original: str


def find_copies(
    root: Path,
    withheld: Iterable[StorePath],
    among: Iterable[StorePath],
    holds: Callable[[StorePath, StorePath], bool],
) -> list[Copy]:
    """Look for files of *withheld* in each path of *among*, but not for what it *holds* itself.

    *holds* tells of a path and a withheld one whether this may have the file from that. It is asked
    of what was found only. *root* is where the store's ``/nix`` lies. One copy a path is enough.
    """
    originals: dict[int, list[tuple[StorePath, str, str]]] = {}
    for path in withheld:
        for name, size in _files(root, path):
            originals.setdefault(size, []).append((path, _below(name, root, path), name))
    hashes: dict[str, bytes] = {}
    found = []
    for path in among if originals else ():
        copies = _copies(root, path, originals, hashes)
        found += [next((copy for copy in copies if not holds(path, copy.of)), None)]
    return [copy for copy in found if copy is not None]


def _copies(
    root: Path,
    path: StorePath,
    originals: Mapping[int, list[tuple[StorePath, str, str]]],
    hashes: dict[str, bytes],
) -> Iterator[Copy]:
    for name, size in _files(root, path):
        for of, original, file in originals.get(size, ()):
            if _hash(name, hashes) == _hash(file, hashes):
                yield Copy(path, _below(name, root, path), of, original)


def _hash(name: str, hashes: dict[str, bytes]) -> bytes:
    if name not in hashes:
        with open(name, "rb") as file:
            hashes[name] = hashlib.file_digest(file, "sha256").digest()
    return hashes[name]


def _files(root: Path, path: StorePath) -> Iterator[tuple[str, int]]:
    top = f"{root}{path}" if str(root) != "/" else str(path)
    try:
        for name in files_below(top):
            size = os.lstat(name).st_size
            if size >= LEAST and not _is_licence_text(name, size):
                yield name, size
    except OSError as error:
        raise CouldNotCheck(f"cannot read {path}: {error.strerror}") from error


def _is_licence_text(name: str, size: int) -> bool:
    if size > _LONGEST or _LICENCE.fullmatch(os.path.basename(name)) is None:
        return False
    with open(name, "rb") as file:
        content = file.read()
    return not content.startswith(b"#!") and _CONTROL.search(content) is None


def _below(name: str, root: Path, path: StorePath) -> str:
    return os.path.relpath(name, f"{root}{path}" if str(root) != "/" else str(path))
