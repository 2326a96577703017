"""Replay a tile log, from its first entry or a tree seen before, recomputing all of it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.formats.tlog.body import parse_body
from nix_seed.formats.tlog.merkle import (
    EMPTY,
    HashReader,
    TreeHead,
    build_root,
    leaf_hash,
    read_appended,
    read_from_leaves,
)
from nix_seed.formats.tlog.note import SignedCheckpoint
from nix_seed.formats.tlog.tile import build_tiles, tiles_of
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
