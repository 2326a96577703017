"""In which files two NARs of one output differ, read from the repositories that keep them."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

from nix_seed.core.digests import NarHash
from nix_seed.core.errors import CouldNotCheck, NixSeedError
from nix_seed.core.files import explained
from nix_seed.core.words import human_size
from nix_seed.formats.nix.nar import NarEntry, read_nar
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.image.diffoscope import show_difference
from nix_seed.image.read.safe_root import scratch_directory
from nix_seed.outputs.kept import find_kept
from nix_seed.outputs.nar import unpack_nar
from nix_seed.outputs.rules.findings import DifferingFile
from nix_seed.outputs.rules.kept import NAR_TYPE, KeptOutput
from nix_seed.registry.store import ImageStore

_T = TypeVar("_T")
LARGEST_COMPARED: Final = 1 << 30
"""Bytes of a NAR: what is larger is not read for it."""
LARGEST_SHOWN: Final = 64 << 20
"""Bytes of a NAR: what is larger is not unpacked for diffoscope."""
_MOST_SHOWN: Final = 20_000  # files
_MOST_ENTRIES: Final = 200_000
_HEAD: Final = 64 << 10  # bytes of each file, for saying where it differs
_MOST_HELD: Final = 64 << 20
_SHOWN: Final = 24  # bytes


def compare_nars(
    stores: Sequence[ImageStore], path: StorePath, one: NarHash, other: NarHash
) -> tuple[DifferingFile, ...]:
    """Return in which files the two NARs of *path* differ, sorted.

    Raises ``CouldNotCheck`` where one is not kept any more, ``CheckedFalse`` where what is kept is
    another NAR.
    """
    first, second = (_find(stores, path, each, _entries) for each in (one, other))
    names = sorted(first.keys() | second.keys())
    pairs = ((name, first.get(name), second.get(name)) for name in names)
    return tuple(
        DifferingFile(name.decode("utf-8", "backslashreplace") or ".", _how(here, there))
        for name, here, there in pairs
        if _sameness(here) != _sameness(there)
    )


def nars_of(
    stores: Sequence[ImageStore], path: StorePath, *wanted: NarHash
) -> tuple[Iterator[bytes], ...]:
    """Return the NARs of *path* that have the hashes *wanted*; each ends only if it is right."""
    return tuple(_find(stores, path, each, _open) for each in wanted)


def show_nars(program: str, one: Iterable[bytes], other: Iterable[bytes]) -> str:
    """Return what diffoscope, the *program*, shows of two NARs; empty where it sees the same.

    ``CouldNotCheck`` where it failed or took too long; and as the NARs raise.
    """
    with scratch_directory("nix-seed-diffoscope-") as scratch:
        for name, nar in (("first", one), ("second", other)):
            _unpack(nar, scratch / name)
        return show_difference(program, scratch, "first", "second")


def _unpack(nar: Iterable[bytes], top: Path) -> None:
    """Write the tree that *nar* is; each directory in it is one that was made here."""
    left, count = LARGEST_SHOWN, 0
    # As it is read, no name leads out of its directory, and none comes twice.
    for entry in read_nar(nar, "the NAR", LARGEST_SHOWN):
        left, count = left - entry.size, count + 1
        if left < 0 or count > _MOST_SHOWN:
            most = f"{human_size(LARGEST_SHOWN)} and {_MOST_SHOWN} files"
            raise CouldNotCheck(f"diffoscope is given outputs of up to {most}")
        path = Path(os.fsdecode(os.path.join(os.fsencode(top), entry.path)) if entry.path else top)
        with explained("unpacking for diffoscope"):
            if entry.kind == "directory":
                path.mkdir()
            elif entry.kind == "symlink":
                os.symlink(entry.head, os.fsencode(path))
            else:
                # Not through a link whose name is the same where case makes no difference.
                with path.open("xb") as file:
                    file.write(entry.head)
                path.chmod(0o555 if entry.kind == "program" else 0o444)


def _find(
    stores: Sequence[ImageStore],
    path: StorePath,
    wanted: NarHash,
    read: Callable[[ImageStore, KeptOutput], _T],
) -> _T:
    problem: NixSeedError | None = None
    for store in stores:
        for kept in find_kept(store, path.hash_part).kept:
            if kept.path != path or kept.nar_hash != wanted:
                continue
            try:
                return read(store, kept)
            except NixSeedError as error:
                problem = error
    raise problem or CouldNotCheck(
        f"the NAR {wanted} of {path} is not kept, so its files cannot be compared",
        hint="have its builder push it again: nix-seed outputs push",
    )


def _open(store: ImageStore, kept: KeptOutput) -> Iterator[bytes]:
    blob = store.open_blob(kept.nar.descriptor(NAR_TYPE))
    return unpack_nar(blob, kept.info, _named(kept))


def _named(kept: KeptOutput) -> str:
    return f"the NAR {kept.nar_hash} of {kept.path}"


def _entries(store: ImageStore, kept: KeptOutput) -> dict[bytes, NarEntry]:
    what = _named(kept)
    if kept.nar_size > LARGEST_COMPARED:
        size, most = human_size(kept.nar_size), human_size(LARGEST_COMPARED)
        raise CouldNotCheck(f"{what} has {size}; files of up to {most} are compared")
    found: dict[bytes, NarEntry] = {}
    held = 0
    for entry in read_nar(_open(store, kept), what, _HEAD):
        if len(found) >= _MOST_ENTRIES:
            raise CouldNotCheck(f"{what} has more than {_MOST_ENTRIES} files")
        held += len(entry.head)
        found[entry.path] = entry if held <= _MOST_HELD else replace(entry, head=b"")
    return found


def _sameness(entry: NarEntry | None) -> tuple[object, ...]:
    return () if entry is None else (entry.kind, entry.size, entry.digest)


def _how(one: NarEntry | None, other: NarEntry | None) -> str:
    if one is None or other is None:
        return "only the second has it" if one is None else "only the first has it"
    if one.kind != other.kind:
        return f"{one.kind} and {other.kind}"
    if one.kind == "symlink":
        return f"links to {_text(one.head)} and {_text(other.head)}"
    begun = min(len(one.head), len(other.head))
    place = next((n for n in range(begun) if one.head[n] != other.head[n]), None)
    sizes = "" if one.size == other.size else f"{one.size} and {other.size} bytes; "
    if place is None and begun == min(one.size, other.size):
        return f"{sizes}the shorter is the beginning of the other"
    if place is None:
        return f"{sizes}they differ after byte {begun}"
    start = max(0, place - _SHOWN // 3)
    here, there = (each.head[start : start + _SHOWN] for each in (one, other))
    return f"{sizes}from byte {place} on: {_text(here)} and {_text(there)}"


def _text(raw: bytes) -> str:
    return ascii(raw.decode("utf-8", "surrogateescape"))[:80]
