"""Replays the logs of a policy: every entry from the first one on, or from where it left off."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from nix_seed.clients.logs.base import Historian
from nix_seed.clients.logs.choose import open_history
from nix_seed.clients.logs.rekor_v1 import RekorV1
from nix_seed.clients.logs.rekor_v2 import RekorV2
from nix_seed.clients.logs.state import CheckpointState
from nix_seed.clients.logs.tile_log import TileReader
from nix_seed.clients.logs.tile_source import read_tiles
from nix_seed.clients.registry.patience import Patience
from nix_seed.flows.check_log import check_tiles
from nix_seed.formats.intoto.commit import Commit
from nix_seed.formats.tlog.checkpoint import SignedCheckpoint
from nix_seed.formats.tlog.entry import LogEntry
from nix_seed.formats.tlog.merkle import (
    HashReader,
    TreeHead,
    build_inclusion_proof,
    build_root,
    check_consistency,
    check_inclusion,
    leaf_hash,
    read_appended,
    read_from_leaves,
)
from nix_seed.formats.tlog.tile import WIDTH, Tile, decode_entries
from nix_seed.ground.errors import CheckedFalse, CouldNotCheck
from nix_seed.rules.audit_entries import PromoterEntry, Sieve
from nix_seed.rules.log_verify import TrustedLog
from nix_seed.rules.release_evidence import LoggedAt

__all__ = ["Replay", "replay_index", "replay_log"]

_PATIENCE = Patience(attempts=3, connect=10.0, stall=20.0, settle=20.0)
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Replay:
    """The log *trusted*, replayed: its tree at *head*, of which what is after *since* was read.

    *entries* are those in a promoter's name among these, *votes* those in a builder's,
    *commits* what commit an index gave an entry for. *reader* is None for a log that gives no list
    of its entries; nothing can be told of any index of it then.
    """

    trusted: TrustedLog
    head: TreeHead
    since: int
    entries: tuple[PromoterEntry, ...]
    reader: TileReader | None
    hashes: HashReader | None
    historian: Historian
    votes: tuple[PromoterEntry, ...] = ()
    commits: Mapping[int, Commit] = field(default_factory=dict)

    def holds(self, at: LoggedAt) -> bool | None:
        """Whether the leaf is at its index in the tree; None where that cannot be told."""
        if self.hashes is None or at.index >= self.head.size:
            return None
        proof = build_inclusion_proof(at.index, self.head.size, self.hashes)
        try:
            check_inclusion(proof, at.index, at.leaf_hash.raw, self.head)
        except CheckedFalse:
            return False
        return True

    def check_brought(self, signed: SignedCheckpoint) -> None:
        """``CheckedFalse`` unless the tree of *signed*, brought with an entry, began this one."""
        size = signed.head.size
        if size > self.head.size:
            # It may have grown while the audit went on. It cannot have shrunk.
            now = self.historian.checkpoint().head.size
            if now < size:
                raise CheckedFalse(
                    f"the log {self.trusted.id} rolled back: it showed a tree of {size} entries, "
                    f"and has {now} now"
                )
            return
        if self.hashes is None:
            proof = self.historian.consistency(size, self.head.size)
            check_consistency(proof, signed.head, self.head)
        elif build_root(size, self.hashes) != signed.head:
            raise CheckedFalse(
                f"the log {self.trusted.id} shows a split view: it signed another tree of {size} "
                "entries than the one it has"
            )


def replay_log(
    trusted: TrustedLog,
    place: str,
    since: TreeHead | None,
    sieves: tuple[Sieve, Sieve],
    state: CheckpointState | None,
    most: int,
) -> Replay | RekorV1:
    """Read the log at *place* from the tree *since* on; recompute its root, and all tiles if None.

    Rekor v1 gives no list of its entries: its client is returned. ``CheckedFalse`` where the log
    lies, ``CouldNotCheck`` where it is out of reach or has more than *most* new entries.
    """
    log = open_history(trusted, place, patience=_PATIENCE)
    if isinstance(log, RekorV1):
        return log
    reader = log.reader if isinstance(log, RekorV2) else log
    if not isinstance(reader, TileReader):
        raise CouldNotCheck(f"the log {trusted.id} at {place} is of no kind that can be replayed")
    signed = _newest(trusted, reader, state)
    start = since or TreeHead(0, build_root(0, lambda _: []).root)
    _check_size(trusted, start, signed.head, most)
    leaves = []
    for index, body in enumerate(_bodies(reader, start.size, signed.head.size), start.size):
        leaves.append(leaf_hash(body))
        for sieve in sieves:
            sieve.look(index, body, leaves[-1])
    hashes = _hashes(reader, start.size, leaves)
    _check_roots(trusted, start, signed.head, hashes)
    if start.size == 0:
        check_tiles(reader, signed.head.size, hashes)
    entries, votes = (tuple(sieve.found) for sieve in sieves)
    return Replay(trusted, signed.head, start.size, entries, reader, hashes, reader, votes)


def replay_index(
    log: RekorV1,
    commits: Iterable[Commit],
    sieves: tuple[Sieve, Sieve],
    state: CheckpointState | None,
) -> Replay:
    """Ask Rekor v1 for all entries of *commits*, and hold it to what it showed before."""
    signed = _newest(log.trusted, log, state)
    seen: set[bytes] = set()
    about: dict[int, Commit] = {}
    for commit in commits:
        for value in log.lookup(commit.key.raw):
            entry = LogEntry.from_json(value, f"an entry of {log.trusted.id}")
            leaf = leaf_hash(entry.body)
            if leaf not in seen:
                seen.add(leaf)
                about[entry.index] = commit
                for sieve in sieves:
                    sieve.look(entry.index, entry.body, leaf)
    entries, votes = (tuple(sieve.found) for sieve in sieves)
    return Replay(log.trusted, signed.head, 0, entries, None, None, log, votes, about)


def _newest(
    trusted: TrustedLog, historian: Historian, state: CheckpointState | None
) -> SignedCheckpoint:
    return historian.checkpoint() if state is None else state.ask(trusted, historian)[0]


def _check_size(trusted: TrustedLog, start: TreeHead, head: TreeHead, most: int) -> None:
    if head.size < start.size:
        raise CheckedFalse(
            f"the log {trusted.id} rolled back: {start.size} entries were audited before, and now "
            f"it has {head.size}"
        )
    if head.size - start.size > most:
        raise CouldNotCheck(
            f"the log {trusted.id} has {head.size - start.size} entries to read, and {most} are "
            "the most: raise --most-entries"
        )


def _check_roots(trusted: TrustedLog, start: TreeHead, head: TreeHead, hashes: HashReader) -> None:
    if build_root(start.size, hashes) != start:
        raise CheckedFalse(
            f"the log {trusted.id} forked: its first {start.size} entries are not those that were "
            "audited before"
        )
    if build_root(head.size, hashes) != head:
        raise CheckedFalse(
            f"the log {trusted.id} does not hold what it signed: its {head.size} entries have "
            "another root than its checkpoint"
        )


def _hashes(reader: TileReader, start: int, leaves: Sequence[bytes]) -> HashReader:
    if start == 0:
        return read_from_leaves(leaves)
    return read_appended(start, reader.hashes(start), leaves)


def _bodies(reader: TileReader, start: int, end: int) -> Iterator[bytes]:
    """Yield the entries from *start* up to *end*, several bundles fetched at once."""
    numbers = iter(range(start // WIDTH, -(-end // WIDTH)))
    while some := list(islice(numbers, _AT_ONCE)):
        tiles = [Tile(Tile.ENTRIES, each, min(WIDTH, end - each * WIDTH)) for each in some]
        for tile, data in zip(tiles, read_tiles(reader.source, tiles), strict=True):
            bodies = decode_entries(tile, data)
            yield from bodies[max(0, start - tile.index * WIDTH) :]
