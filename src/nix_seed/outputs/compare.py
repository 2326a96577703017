"""In which files two NARs of one output differ, read from the repositories that keep them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from nix_seed.core.digests import NarHash
from nix_seed.core.errors import CouldNotCheck, NixSeedError
from nix_seed.core.words import human_size
from nix_seed.formats.nix.nar import NarEntry, read_nar
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.outputs.kept import find_kept
from nix_seed.outputs.nar import unpack_nar
from nix_seed.outputs.rules.findings import DifferingFile
from nix_seed.outputs.rules.kept import NAR_TYPE, KeptOutput
from nix_seed.registry.store import ImageStore

_T = TypeVar("_T")
LARGEST_COMPARED: Final = 1 << 30
"""Bytes of a NAR: what is larger is not read for it."""
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
