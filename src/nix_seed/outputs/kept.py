"""Keeps outputs in a repository, each path's in an index of its own, and finds them again.

Two jobs may write one index at once, and no registry compares before it writes: who lost sees it in
``ensure``, and writes again.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.formats.oci.manifest import Descriptor, Index, MediaType
from nix_seed.outputs.rules.kept import MOST_KEPT, KeptOutput, entry_of, read_entries, tag_of
from nix_seed.registry.store import ImageStore

_ROUNDS = 5
_EMPTY = b"{}"
CONFIG = Descriptor(MediaType.EMPTY, Digest.of(_EMPTY), len(_EMPTY))


@dataclass(frozen=True, slots=True)
class Listed:
    """What is kept of a path, the newest first; *troubles* are entries that cannot be read."""

    kept: tuple[KeptOutput, ...] = ()
    troubles: tuple[InputError, ...] = ()


def find_kept(store: ImageStore, hash_part: str, *, writing: bool = False) -> Listed:
    """Ask, by one request, what *store* keeps of the path with this hash; nothing is proved.

    ``CheckedFalse`` for what is no index. Who is *writing* next takes a refusal for nothing.
    """
    tag = tag_of(hash_part)
    return Listed(
        *read_entries(listed_at(store, tag, writing=writing), hash_part, f"{store}:{tag}")
    )


def put_config(store: ImageStore) -> None:
    """Store the empty config that every kept output's manifest names."""
    if not store.has_blob(CONFIG.digest):
        store.take_blob(CONFIG, lambda held: iter((_EMPTY[held.size :],)))


def keep(store: ImageStore, kept: KeptOutput) -> Descriptor:
    """List *kept*, whose blobs are in *store*, under its path; return the entry."""
    manifest = kept.manifest(CONFIG).dump()
    entry = entry_of(manifest, kept)
    store.put_manifest(manifest, MediaType.MANIFEST, entry.digest)
    _add(store, tag_of(kept.path.hash_part), entry)
    return entry


def ensure(store: ImageStore, path: StorePath, entry: Descriptor) -> None:
    """See that *entry* stands under *path*, whoever else wrote there meanwhile.

    ``CouldNotCheck`` where others overwrite it again and again.
    """
    tag = tag_of(path.hash_part)
    for attempt in range(_ROUNDS):
        if entry.digest in {item.digest for item in listed_at(store, tag, writing=True)}:
            return
        time.sleep(random.uniform(0, 0.1 * 2**attempt))
        _add(store, tag, entry)
    raise CouldNotCheck(
        f"{store}:{tag} is being rewritten by others; {path} is pushed, but not listed",
        hint="run the same command again",
    )


_LOCKS = [threading.Lock() for _ in range(64)]


def _add(store: ImageStore, tag: str, entry: Descriptor) -> None:
    # Threads of this process take turns at one path.
    with _LOCKS[hash(tag) % len(_LOCKS)]:
        present = {item.digest: item for item in listed_at(store, tag, writing=True)}
        if entry.digest in present:
            return
        if len(present) >= MOST_KEPT:
            raise CouldNotCheck(
                f"{store}:{tag} lists {len(present)} outputs already, the most there are",
                hint="remove old ones: nix-seed outputs clean",
            )
        merged = sorted((*present.values(), entry), key=lambda item: item.digest)
        store.put_manifest(Index(tuple(merged)).dump(), MediaType.INDEX, tag)


def drop(store: ImageStore, tag: str, unwanted: Collection[Digest]) -> None:
    """Take the entries *unwanted* off the list at *tag*.

    It is read once more just before, so that what another job adds has a round trip to get lost in;
    that job sees it in ``ensure``.
    """
    with _LOCKS[hash(tag) % len(_LOCKS)]:
        stay = [item for item in listed_at(store, tag) if item.digest not in unwanted]
        store.put_manifest(Index(tuple(stay)).dump(), MediaType.INDEX, tag)


def listed_at(store: ImageStore, tag: str, *, writing: bool = False) -> tuple[Descriptor, ...]:
    """Return what the list at *tag* names; ``CheckedFalse`` for what is no list."""
    fetched = store.get_manifest(tag, writing=writing)
    if fetched is None:
        return ()
    where = f"{store}:{tag}"
    if fetched.descriptor.media_type != MediaType.INDEX:
        raise CheckedFalse(
            f"{where} is a {fetched.descriptor.media_type}, not a list of outputs",
            hint="somebody pushed something else under this name: remove the tag",
        )
    try:
        return Index.parse(fetched.body, where).manifests
    except InputError as error:
        raise CheckedFalse(
            error.message, hint="remove the tag, or push the output again"
        ) from error
