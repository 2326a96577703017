"""Reads a tile log, in a directory or from a server, and proves what it reads.

That is checkpoints, entries and consistency. A replay recomputes all of it, from the first entry or
from a tree seen before.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.core.files import read_if_there, read_regular
from nix_seed.formats.tlog.entry import HashedRekord, InclusionProof, LogEntry, parse_body
from nix_seed.formats.tlog.merkle import (
    EMPTY,
    HASH_SIZE,
    WIDTH,
    HashReader,
    Proof,
    Tile,
    TreeHead,
    build_consistency_proof,
    build_inclusion_proof,
    build_root,
    build_tiles,
    check_inclusion,
    decode_entries,
    leaf_hash,
    read_appended,
    read_from_leaves,
    read_from_tiles,
    tiles_of,
)
from nix_seed.formats.tlog.note import NoteKey, SignedCheckpoint, check_signed
from nix_seed.logs.log import CheckpointState, Entry, OneLog
from nix_seed.logs.rules.entry import HistoryResult, TrustedLog

_AT_ONCE = 8
_LEVELS = 8
_LARGEST_FILE = 32 << 20  # bytes: 256 entries of at most 64 KiB, and more


def read_key_of_log(path: Path) -> NoteKey:
    """Read a log's verifier key from its file, ``log.vkey`` by name."""
    return NoteKey.parse(read_regular(path).decode("utf-8", "replace").strip())


class TileSource(Protocol):
    """Reads files by their path below the log's prefix."""

    def read(self, path: str) -> bytes | None:
        """Return the file's bytes, None where there is none."""
        ...

    def __str__(self) -> str: ...


class DirectorySource:
    """A tile log's files on disk."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self, path: str) -> bytes | None:
        """Return the file's bytes, None where there is none."""
        return read_if_there(self._directory / path, _LARGEST_FILE)

    def __str__(self) -> str:
        return str(self._directory)


def read_tile(source: TileSource, tile: Tile) -> bytes:
    """Return a hash tile or bundle; a partial one may be cut from the full one that followed it."""
    data = source.read(tile.path)
    if data is not None:
        return data
    if not tile.is_full:
        # A log may drop partial tiles once the full one is there (tlog-tiles, "Partial Tiles").
        data = source.read(tile.full.path)
        if data is not None:
            return _cut(tile, data)
    raise CouldNotCheck(
        f"the log at {source} has no {tile.path}",
        hint="its checkpoint says there must be one: the copy is incomplete, or its operator lies",
    )


def read_tiles(source: TileSource, tiles: Sequence[Tile]) -> list[bytes]:
    """Return each of the tiles, several read at once."""
    if len(tiles) < 2:
        return [read_tile(source, tile) for tile in tiles]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda tile: read_tile(source, tile), tiles))


def _cut(tile: Tile, data: bytes) -> bytes:
    if tile.level != Tile.ENTRIES:
        return data[: tile.width * HASH_SIZE]
    end = 0
    for _ in range(tile.width):
        end += 2 + int.from_bytes(data[end : end + 2], "big")
    return data[:end]


class TileReader(OneLog):
    """The files of the log *trusted*, at *source*. What it returns has been verified."""

    def __init__(self, trusted: TrustedLog, source: TileSource) -> None:
        super().__init__(trusted)
        self.source = source

    def checkpoint(self) -> SignedCheckpoint:
        """Return the newest checkpoint; ``CheckedFalse`` if the log's key did not sign it."""
        data = self.source.read("checkpoint")
        label = f"the checkpoint of the log {self.trusted.id}"
        if data is None:
            raise CouldNotCheck(
                f"there is no log at {self.source}: it has no checkpoint",
                hint="is the address right, and the directory the one that is published?",
            )
        try:
            return check_signed(data, self.trusted.key, self.trusted.origin, label)
        except InputError as error:
            raise CouldNotCheck(f"at {self.source}: {error.message}") from error

    def hashes(self, size: int) -> HashReader:
        """Return a reader over the tree of *size* leaves; what it reads proves nothing yet."""
        return read_from_tiles(size, lambda tiles: read_tiles(self.source, tiles))

    def consistency(self, old: int, new: int) -> Proof:
        """Return a consistency proof made of the log's tiles."""
        return build_consistency_proof(old, new, self.hashes(new))

    def bundle(self, tile: Tile) -> tuple[bytes, ...]:
        """Return the entries of a bundle, as the log gives them."""
        return decode_entries(tile, read_tile(self.source, tile))

    def entry(self, index: int, signed: SignedCheckpoint) -> LogEntry:
        """Return the proven entry *index* of the tree that *signed* is the checkpoint of."""
        return next(self.entries(signed, index, index + 1))

    def entries(
        self, signed: SignedCheckpoint, start: int = 0, end: int | None = None
    ) -> Iterator[LogEntry]:
        """Yield the proven entries from *start* up to *end*, or to the end of the tree."""
        head = signed.head
        end = head.size if end is None else end
        if not 0 <= start <= end <= head.size:
            raise InputError(f"the log has {head.size} entries: there are none {start} to {end}")
        read = self.hashes(head.size)
        for number in range(start // WIDTH, -(-end // WIDTH)):
            first = number * WIDTH
            bodies = self.bundle(Tile(Tile.ENTRIES, number, min(WIDTH, head.size - first)))
            for index in range(max(start, first), min(end, first + len(bodies))):
                yield self._proven(index, bodies[index - first], signed, read)

    def lookup(self, digest: bytes) -> Iterator[Entry]:
        """Read the whole log for the SHA-256 *digest* of signed bytes; yield the proven entries."""
        for entry in self.entries(self.checkpoint()):
            try:
                body = parse_body(entry.body, f"entry {entry.index} of {self.trusted.id}")
            except InputError:
                continue  # a log holds what others wrote, too
            if isinstance(body, HashedRekord) and body.digest == digest:
                yield entry.to_json()

    def bodies(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the entries from *start* up to *end*, unproven; several bundles read at once."""
        numbers = iter(range(start // WIDTH, -(-end // WIDTH)))
        while some := list(islice(numbers, _AT_ONCE)):
            tiles = [Tile(Tile.ENTRIES, each, min(WIDTH, end - each * WIDTH)) for each in some]
            for tile, data in zip(tiles, read_tiles(self.source, tiles), strict=True):
                yield from decode_entries(tile, data)[max(0, start - tile.index * WIDTH) :]

    def _proven(
        self, index: int, body: bytes, signed: SignedCheckpoint, read: HashReader
    ) -> LogEntry:
        head = signed.head
        proof = build_inclusion_proof(index, head.size, read)
        try:
            check_inclusion(proof, index, leaf_hash(body), head)
        except CheckedFalse as error:
            raise CheckedFalse(
                f"the log {self.trusted.id} lies about entry {index}: {error.message}"
            ) from error
        return build_entry(self.trusted, index, body, proof, signed)


def build_entry(
    trusted: TrustedLog, index: int, body: bytes, proof: Proof, signed: SignedCheckpoint
) -> LogEntry:
    """Return the entry of the leaf *body*, with its proof under *signed*."""
    try:
        kind, version = parse_body(body, "the entry").kind
    except InputError:
        kind, version = "unknown", "0"
    head = signed.head
    inclusion = InclusionProof(index, head.root, head.size, proof, signed.dump())
    return LogEntry(index, trusted.key.log_id, kind, version, 0, None, inclusion, body)


@dataclass(frozen=True, slots=True)
class LogReport:
    """A log that was found whole: *signed* is its checkpoint, *kinds* its entries by kind.

    *tiles* is how many hash tiles were recomputed. *history* compares with what was seen before;
    None where nothing was, or nothing is remembered.
    """

    signed: SignedCheckpoint
    tiles: int
    kinds: tuple[tuple[str, int], ...]
    history: HistoryResult | None


def check_log(reader: TileReader, state: CheckpointState | None = None) -> LogReport:
    """Read every entry and every tile; ``CheckedFalse`` names the first that is wrong.

    With *state* the checkpoint is compared with the last one seen, and remembered.
    """
    history = None
    if state is None:
        signed = reader.checkpoint()
    else:
        signed, history = state.ask(reader.trusted, reader)
    kinds: Counter[str] = Counter()
    read = replay(reader, EMPTY, signed.head, lambda _, body, __: kinds.update((_kind(body),)))
    tiles = check_tiles(reader, signed.head.size, read)
    return LogReport(signed, tiles, tuple(sorted(kinds.items())), history)


def replay(
    reader: TileReader, start: TreeHead, head: TreeHead, look: Callable[[int, bytes, bytes], None]
) -> HashReader:
    """Read the entries that the tree *head* has beyond *start*, and recompute both trees.

    Each is given to *look*: its index, its body, its leaf hash. ``CheckedFalse`` where the log does
    not hold what it signed.
    """
    leaves: list[bytes] = []
    for index, body in enumerate(reader.bodies(start.size, head.size), start.size):
        leaves.append(leaf_hash(body))
        look(index, body, leaves[-1])
    read = read_from_leaves(leaves)
    if start.size:
        read = read_appended(start.size, reader.hashes(start.size), leaves)
    if build_root(start.size, read) != start:
        raise CheckedFalse(
            f"the log {reader.trusted.id} forked: its first {start.size} entries are not those "
            "that were audited before"
        )
    if build_root(head.size, read) != head:
        raise CheckedFalse(
            f"the log {reader.trusted.id} does not hold what it signed: its {head.size} entries "
            "have another root than its checkpoint"
        )
    return read


def check_tiles(reader: TileReader, size: int, read: HashReader) -> int:
    """Compare every hash tile of the log with what *read* has; return how many there are."""
    tiles = [tile for level in range(_LEVELS) for tile in tiles_of(size, level)]
    for tile, expected in zip(tiles, build_tiles(tiles, read), strict=True):
        if read_tile(reader.source, tile) != expected:
            raise CheckedFalse(
                f"{tile.path} of the log {reader.trusted.id} does not hold its entries' hashes"
            )
    return len(tiles)


def _kind(body: bytes) -> str:
    try:
        return " ".join(parse_body(body, "an entry").kind)
    except InputError:
        return "of another kind"
