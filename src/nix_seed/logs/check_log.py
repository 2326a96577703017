"""Check a tile log from its first entry to its checkpoint, recomputing all of it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.formats.tlog.body import parse_body
from nix_seed.formats.tlog.merkle import HashReader, build_root, leaf_hash, read_from_leaves
from nix_seed.formats.tlog.note import SignedCheckpoint
from nix_seed.formats.tlog.tile import Tile, build_tiles, tiles_of
from nix_seed.logs.rules.history import HistoryResult
from nix_seed.logs.state import CheckpointState
from nix_seed.logs.tile_log import TileReader, read_tile

_LEVELS = 8


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
    head = signed.head
    leaves: list[bytes] = []
    kinds: Counter[str] = Counter()
    for body in _bodies(reader, head.size):
        leaves.append(leaf_hash(body))
        kinds[_kind(body)] += 1
    read = read_from_leaves(leaves)
    if build_root(head.size, read) != head:
        raise CheckedFalse(
            f"the log {reader.trusted.id} does not hold what it signed: its {head.size} entries "
            "have another root than its checkpoint"
        )
    tiles = check_tiles(reader, head.size, read)
    return LogReport(signed, tiles, tuple(sorted(kinds.items())), history)


def check_tiles(reader: TileReader, size: int, read: HashReader) -> int:
    """Compare every hash tile of the log with what *read* has; return how many there are."""
    tiles = [tile for level in range(_LEVELS) for tile in tiles_of(size, level)]
    for tile, expected in zip(tiles, build_tiles(tiles, read), strict=True):
        if read_tile(reader.source, tile) != expected:
            raise CheckedFalse(
                f"{tile.path} of the log {reader.trusted.id} does not hold its entries' hashes"
            )
    return len(tiles)


def _bodies(reader: TileReader, size: int) -> Iterator[bytes]:
    for tile in tiles_of(size, Tile.ENTRIES):
        yield from reader.bundle(tile)


def _kind(body: bytes) -> str:
    try:
        return " ".join(parse_body(body, "an entry").kind)
    except InputError:
        return "of another kind"
