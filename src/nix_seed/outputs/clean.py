"""Takes outputs off their lists that nobody has pushed for long, and their blobs off a disk.

A job that runs meanwhile loses nothing: what it pushes is younger than anything that is dropped, it
looks for each blob once more after it has listed it, and what it asks for in vain Nix builds. A
registry collects what no list names by itself; on a disk that is done here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from nix_seed.core.declared import time_text
from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError, NixSeedError
from nix_seed.formats.nix.store_path import HASH_PART
from nix_seed.formats.oci.manifest import Descriptor, Index, MediaType
from nix_seed.outputs.kept import listed_at
from nix_seed.outputs.rules.kept import TAG_PREFIX, KeptOutput, read_entry
from nix_seed.registry.layout_store import LayoutStore
from nix_seed.registry.store import ImageStore

_TAG: Final = re.compile(rf"{TAG_PREFIX}({HASH_PART})\Z")
_AGE: Final = re.compile(r"([1-9][0-9]{0,4})([dhw])\Z")
_UNITS: Final = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


@dataclass(frozen=True, slots=True)
class CleanedOutputs:
    """How many outputs were *dropped* and *kept*, and the bytes *freed* on this disk."""

    dropped: int
    kept: int
    freed: int
    troubles: tuple[str, ...]


def parse_age(text: str) -> timedelta:
    """Read ``30d``, ``12h`` or ``8w``."""
    found = _AGE.match(text)
    if found is None:
        raise InputError(f"{text!r} is no age", hint="write 30d, 12h or 8w")
    return int(found[1]) * _UNITS[found[2]]


def clean_outputs(
    store: ImageStore, oldest: datetime, commits: Collection[str] = frozenset()
) -> CleanedOutputs:
    """Drop what was pushed last before *oldest*, but for what was built from one of *commits*.

    A list that cannot be read stays as it is.
    """
    limit = time_text(oldest)
    dropped: list[tuple[Descriptor, KeptOutput]] = []
    used: set[Digest] = set()
    kept, troubles = 0, []
    for tag in store.list_tags():
        named = _TAG.match(tag)
        if named is None:
            continue
        try:
            entries = listed_at(store, tag)
            read = [(item, read_entry(item, named[1], f"{store}:{tag}")) for item in entries]
        except NixSeedError as error:
            troubles.append(error.message)
            continue
        stay = [e for e in read if e[1].pushed >= limit or e[1].commit in commits]
        if len(stay) < len(read):
            body = Index(tuple(item for item, _ in stay)).dump()
            store.put_manifest(body, MediaType.INDEX, tag)
        dropped += [each for each in read if each not in stay]
        kept += len(stay)
        used |= {digest for each in stay for digest in _named(*each)}
    freed = 0
    if isinstance(store, LayoutStore) and not troubles:
        gone = {digest for each in dropped for digest in _named(*each)}
        freed = sum(store.remove_blob(digest) for digest in sorted(gone - used))
    return CleanedOutputs(len(dropped), kept, freed, tuple(troubles))


def _named(item: Descriptor, kept: KeptOutput) -> Iterator[Digest]:
    """Yield what an entry keeps; bundles stay: they are listed beside their commit as well."""
    yield item.digest
    yield kept.nar.digest
