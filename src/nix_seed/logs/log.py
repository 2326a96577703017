"""What every transparency log can do, wherever it is (docs/formats-log.md); what each has shown.

The largest checkpoint seen of each log is remembered, so that a log cannot take back what it
showed: one file a log, ``<hash of origin and key>.checkpoint``. It is the signed note itself,
evidence against the log that anyone can verify. Safe for concurrent processes; it only ever moves
forward.

Reads a tile log, in a directory or from a server, and proves what it reads.

That is checkpoints, entries and consistency. A replay recomputes all of it, from the first entry or
from a tree seen before.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, Protocol

from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.core.files import explained, locked, read_if_there, read_regular, write_atomically
from nix_seed.core.parallel import in_parallel
from nix_seed.core.values import dataclass
from nix_seed.formats.intoto.statement import Envelope
from nix_seed.formats.tlog import entry as tlog_entry, merkle
from nix_seed.formats.tlog.note import NoteKey, SignedCheckpoint, check_signed
from nix_seed.logs.rules import entry as rules

Entry = Mapping[str, Any]
"""A ``TransparencyLogEntry`` as JSON, verbatim as the log gave it (Rekor v1's: as bundles do)."""


class Historian(Protocol):
    """What can be asked about a log's past: the part of ``Log`` that needs no entry."""

    def checkpoint(self) -> SignedCheckpoint:
        """Return the newest checkpoint, its signature verified."""
        ...

    def consistency(self, old: int, new: int) -> merkle.Proof:
        """Return the log's proof that its tree of *old* leaves begins that of *new*: unverified."""
        ...


class Log(Historian, Protocol):
    """A log. ``CouldNotCheck``: it is out of reach. ``CheckedFalse``: it answered, and lied."""

    trusted: rules.TrustedLog
    """Its identity and key, by which every answer is verified before it is returned."""

    def check_writable(self, key: tlog_entry.KeyDetails | None = None, /) -> None:
        """Raise what ``append`` would, as far as that can be told before there is an entry.

        *key* is the kind of the one that will sign; None: it is not known before.
        """
        ...

    def append(self, envelope: Envelope, verifier: tlog_entry.Verifier) -> Entry:
        """Log the one signature of *envelope*, or find it logged; return its proven entry."""
        ...

    def verify(self, entry: Entry, logged: tlog_entry.LoggedSignature) -> rules.EntryResult:
        """Judge *entry* by this log's key alone; no network."""
        ...

    def lookup(self, digest: bytes) -> Iterator[Entry]:
        """Yield the proven entries of a SHA-256.

        Rekor v1 has an index: *digest* is of the envelope's payload, or of any subject in it. A
        log of tiles has none, and is read from its first entry on: *digest* is of the signed bytes.
        """
        ...


class OneLog:
    """A log, by which every answer is verified before it is returned: *trusted*."""

    def __init__(self, trusted: rules.TrustedLog) -> None:
        self.trusted = trusted

    def verify(self, entry: Entry, logged: tlog_entry.LoggedSignature) -> rules.EntryResult:
        """Judge *entry* by this log's key alone; no network."""
        return rules.evaluate_entry(entry, logged, rules.LogTrust((self.trusted,)))

    def checked(self, entry: Entry, logged: tlog_entry.LoggedSignature) -> Entry:
        """Return *entry*, the log's own answer, if it proves what was asked of it.

        Raises ``CheckedFalse`` if not, ``CouldNotCheck`` where it is no entry at all: whatever
        stands in for a log that is down says nothing false.
        """
        result = self.verify(entry, logged)
        if result.fate is rules.EntryFate.MALFORMED:
            raise CouldNotCheck(
                f"the log {self.trusted.id} gave no entry: {result.reason}",
                hint="is this the address of a transparency log of this kind?",
            )
        if not result.proved:
            raise CheckedFalse(f"the log {self.trusted.id} answered falsely: {result.words}")
        return entry


class AbsentLog(OneLog):
    """The log *trusted*, out of reach for the reason *why*; satisfies ``Log``, as one down does."""

    def __init__(self, trusted: rules.TrustedLog, why: CouldNotCheck) -> None:
        super().__init__(trusted)
        self._why = why

    def _fail(self, *_: object, **__: object) -> NoReturn:
        raise CouldNotCheck(self._why.message, hint=self._why.hint) from self._why

    append = check_writable = checkpoint = consistency = lookup = _fail


Consistency = Callable[[int, int], merkle.Proof]
"""Returns the log's consistency proof from a smaller size to a larger one (``Log.consistency``)."""


class CheckpointState:
    """The checkpoints kept in *directory*."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def seen(self, log: rules.TrustedLog) -> SignedCheckpoint | None:
        """Return the largest checkpoint seen of *log*, None before the first."""
        path = self._path(log)
        data = read_if_there(path)
        if data is None:
            return None
        signed = SignedCheckpoint.parse(data, str(path))
        if not log.issued(signed.checkpoint.origin):
            raise InputError(f"{path} is of another log than {log.id}", hint=_HINT)
        log.key.check(signed.note)
        return signed

    def ask(
        self, log: rules.TrustedLog, historian: Historian
    ) -> tuple[SignedCheckpoint, rules.HistoryResult | None]:
        """Ask *historian* for the newest checkpoint, compare it with what was seen, remember it.

        It must not fall short of what was seen before it was asked. Another process may have seen
        more meanwhile, and that the log grew is no lie. Raises as ``advance`` does.
        """
        before = self.seen(log)
        signed = historian.checkpoint()
        back = before is not None and signed.head.size < before.head.size
        return signed, self.advance(log, signed, historian.consistency, newest=back)

    def advance(
        self,
        log: rules.TrustedLog,
        signed: SignedCheckpoint,
        consistency: Consistency,
        *,
        newest: bool = True,
    ) -> rules.HistoryResult | None:
        """Compare *signed*, whose signature was verified, with what was seen, and remember it.

        *consistency* is asked for a proof where one is needed. *newest*: the log gave it as its
        newest, so a smaller one is a rollback; not so for the checkpoint inside an entry.
        Returns None for the first checkpoint; raises ``CheckedFalse`` where the log rolled back,
        forked or shows a split view, and then remembers what it did before.
        """
        with explained("keeping the checkpoints seen"):
            self._directory.mkdir(parents=True, exist_ok=True)
        with explained("keeping the checkpoints seen"), locked(self._directory / "lock"):
            seen = self.seen(log)
            if seen is None:
                write_atomically(self._path(log), signed.dump())
                return None
            old, new = sorted((seen.head.size, signed.head.size))
            back = newest and signed.head.size < seen.head.size
            proof = consistency(old, new) if 0 < old < new and not back else ()
            result = rules.check_history(
                log.id, seen.checkpoint, signed.checkpoint, proof, newest=newest
            )
            if signed.head.size > seen.head.size:
                write_atomically(self._path(log), signed.dump())
            return result

    def _path(self, log: rules.TrustedLog) -> Path:
        # By key as well: another log that takes the same name has another history.
        name = hashlib.sha256(log.origin.encode() + b"\n" + log.key.der).hexdigest()
        return self._directory / f"{name}.checkpoint"


_HINT = "remove it only if you know who changed it: it is what shows that a log rolled back"


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


def read_tile(source: TileSource, tile: merkle.Tile) -> bytes:
    """Return a hash tile or bundle; a partial one may be cut from the full one that followed it."""
    data = source.read(tile.path)
    if data is not None:
        return data
    if not tile.is_full:
        # A log may drop partial tiles once the full one is there (tlog-tiles, "Partial Tiles").
        data = source.read(tile.full.path)
        if data is not None:
            if tile.level != merkle.Tile.ENTRIES:
                return data[: tile.width * merkle.HASH_SIZE]
            end = 0
            for _ in range(tile.width):
                end += 2 + int.from_bytes(data[end : end + 2], "big")
            return data[:end]
    raise CouldNotCheck(
        f"the log at {source} has no {tile.path}",
        hint="its checkpoint says there must be one: the copy is incomplete, or its operator lies",
    )


def read_tiles(source: TileSource, tiles: Sequence[merkle.Tile]) -> list[bytes]:
    """Return each of the tiles, several read at once."""
    return in_parallel(lambda tile: read_tile(source, tile), tiles, _AT_ONCE)


class TileReader(OneLog):
    """The files of the log *trusted*, at *source*. What it returns has been verified."""

    def __init__(self, trusted: rules.TrustedLog, source: TileSource) -> None:
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

    def hashes(self, size: int) -> merkle.HashReader:
        """Return a reader over the tree of *size* leaves; what it reads proves nothing yet."""
        return merkle.read_from_tiles(size, lambda tiles: read_tiles(self.source, tiles))

    def consistency(self, old: int, new: int) -> merkle.Proof:
        """Return a consistency proof made of the log's tiles."""
        return merkle.build_consistency_proof(old, new, self.hashes(new))

    def bundle(self, tile: merkle.Tile) -> tuple[bytes, ...]:
        """Return the entries of a bundle, as the log gives them."""
        return merkle.decode_entries(tile, read_tile(self.source, tile))

    def entry(self, index: int, signed: SignedCheckpoint) -> tlog_entry.LogEntry:
        """Return the proven entry *index* of the tree that *signed* is the checkpoint of."""
        return next(self.entries(signed, index, index + 1))

    def entries(
        self, signed: SignedCheckpoint, start: int = 0, end: int | None = None
    ) -> Iterator[tlog_entry.LogEntry]:
        """Yield the proven entries from *start* up to *end*, or to the end of the tree."""
        head = signed.head
        end = head.size if end is None else end
        if not 0 <= start <= end <= head.size:
            raise InputError(f"the log has {head.size} entries: there are none {start} to {end}")
        read = self.hashes(head.size)
        for number in range(start // merkle.WIDTH, -(-end // merkle.WIDTH)):
            first = number * merkle.WIDTH
            bodies = self.bundle(
                merkle.Tile(merkle.Tile.ENTRIES, number, min(merkle.WIDTH, head.size - first))
            )
            for index in range(max(start, first), min(end, first + len(bodies))):
                yield self._proven(index, bodies[index - first], signed, read)

    def lookup(self, digest: bytes) -> Iterator[Entry]:
        """Read the whole log for the SHA-256 *digest* of signed bytes; yield the proven entries."""
        for entry in self.entries(self.checkpoint()):
            try:
                body = tlog_entry.parse_body(
                    entry.body, f"entry {entry.index} of {self.trusted.id}"
                )
            except InputError:
                continue  # a log holds what others wrote, too
            if isinstance(body, tlog_entry.HashedRekord) and body.digest == digest:
                yield entry.to_json()

    def bodies(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the entries from *start* up to *end*, unproven; several bundles read at once."""
        numbers = iter(range(start // merkle.WIDTH, -(-end // merkle.WIDTH)))
        while some := list(islice(numbers, _AT_ONCE)):
            tiles = [
                merkle.Tile(merkle.Tile.ENTRIES, each, min(merkle.WIDTH, end - each * merkle.WIDTH))
                for each in some
            ]
            for tile, data in zip(tiles, read_tiles(self.source, tiles), strict=True):
                yield from merkle.decode_entries(tile, data)[
                    max(0, start - tile.index * merkle.WIDTH) :
                ]

    def _proven(
        self, index: int, body: bytes, signed: SignedCheckpoint, read: merkle.HashReader
    ) -> tlog_entry.LogEntry:
        proof = merkle.build_inclusion_proof(index, signed.head.size, read)
        try:
            merkle.check_inclusion(proof, index, merkle.leaf_hash(body), signed.head)
        except CheckedFalse as error:
            raise CheckedFalse(
                f"the log {self.trusted.id} lies about entry {index}: {error.message}"
            ) from error
        return build_entry(self.trusted, index, body, proof, signed)


def build_entry(
    trusted: rules.TrustedLog,
    index: int,
    body: bytes,
    proof: merkle.Proof,
    signed: SignedCheckpoint,
) -> tlog_entry.LogEntry:
    """Return the entry of the leaf *body*, with its proof under *signed*."""
    try:
        kind, version = tlog_entry.parse_body(body, "the entry").kind
    except InputError:
        kind, version = "unknown", "0"
    head = signed.head
    inclusion = tlog_entry.InclusionProof(index, head.root, head.size, proof, signed.dump())
    return tlog_entry.LogEntry(index, trusted.key.log_id, kind, version, 0, None, inclusion, body)


@dataclass(frozen=True, slots=True)
class LogReport:
    """A log that was found whole: *signed* is its checkpoint, *kinds* its entries by kind.

    *tiles* is how many hash tiles were recomputed. *history* compares with what was seen before;
    None where nothing was, or nothing is remembered.
    """

    signed: SignedCheckpoint
    tiles: int
    kinds: tuple[tuple[str, int], ...]
    history: rules.HistoryResult | None


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

    def count(_: int, body: bytes, __: bytes) -> None:
        try:
            kinds[" ".join(tlog_entry.parse_body(body, "an entry").kind)] += 1
        except InputError:
            kinds["of another kind"] += 1

    read = replay(reader, merkle.EMPTY, signed.head, count)
    tiles = check_tiles(reader, signed.head.size, read)
    return LogReport(signed, tiles, tuple(sorted(kinds.items())), history)


def replay(
    reader: TileReader,
    start: merkle.TreeHead,
    head: merkle.TreeHead,
    look: Callable[[int, bytes, bytes], None],
) -> merkle.HashReader:
    """Read the entries that the tree *head* has beyond *start*, and recompute both trees.

    Each is given to *look*: its index, its body, its leaf hash. ``CheckedFalse`` where the log does
    not hold what it signed.
    """
    leaves: list[bytes] = []
    for index, body in enumerate(reader.bodies(start.size, head.size), start.size):
        leaves.append(merkle.leaf_hash(body))
        look(index, body, leaves[-1])
    read = merkle.read_from_leaves(leaves)
    if start.size:
        read = merkle.read_appended(start.size, reader.hashes(start.size), leaves)
    if merkle.build_root(start.size, read) != start:
        raise CheckedFalse(
            f"the log {reader.trusted.id} forked: its first {start.size} entries are not those "
            "that were audited before"
        )
    if merkle.build_root(head.size, read) != head:
        raise CheckedFalse(
            f"the log {reader.trusted.id} does not hold what it signed: its {head.size} entries "
            "have another root than its checkpoint"
        )
    return read


def check_tiles(reader: TileReader, size: int, read: merkle.HashReader) -> int:
    """Compare every hash tile of the log with what *read* has; return how many there are."""
    tiles = [tile for level in range(_LEVELS) for tile in merkle.tiles_of(size, level)]
    for tile, expected in zip(tiles, merkle.build_tiles(tiles, read), strict=True):
        if read_tile(reader.source, tile) != expected:
            raise CheckedFalse(
                f"{tile.path} of the log {reader.trusted.id} does not hold its entries' hashes"
            )
    return len(tiles)
