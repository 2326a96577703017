"""Walks a repository's ledger from its first record on, by what each record comes after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nix_seed.clients.blobs import ImageStore
from nix_seed.flows.promotion import read_ledger
from nix_seed.flows.verify import Judges
from nix_seed.formats.intoto.promotion import first_key
from nix_seed.ground.digests import Digest
from nix_seed.rules.policy import Policy
from nix_seed.rules.promotion import Record

__all__ = ["Walked", "walk_ledger"]


@dataclass(frozen=True, slots=True)
class Walked:
    """Every *record* that could be reached, each once, in order; and what was wrong on the way.

    *heads* are those that nothing comes after.
    """

    records: tuple[Record, ...]
    heads: tuple[Digest, ...]
    lies: tuple[str, ...]
    unchecked: tuple[str, ...]


def walk_ledger(
    places: Sequence[ImageStore],
    repository: str,
    policy: Policy,
    judges: Judges,
    since: Sequence[Digest] = (),
) -> Walked:
    """Walk the ledger of *repository* from its beginning, or from the records *since*.

    A record is reached only through all it says it comes after being there: one that names what is
    not reachable is not part of the walk.
    """
    found: dict[Digest, Record] = {}
    lies: dict[str, None] = {}
    unchecked: dict[str, None] = {}
    after: set[Digest] = set()
    ahead = list(since) or [first_key(repository)]
    while ahead:
        step = read_ledger(places, ahead, policy, judges)
        lies |= dict.fromkeys(step.lies)
        unchecked |= dict.fromkeys(step.unchecked)
        ahead = []
        for record in step.records:
            after.update(record.predicate.previous)
            if record.predicate.repository == repository and record.digest not in found:
                found[record.digest] = record
                ahead.append(record.digest)
    heads = [each for each in (*since, *found) if each not in after]
    return Walked(tuple(found.values()), tuple(sorted(heads)), tuple(lies), tuple(unchecked))
