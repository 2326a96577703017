"""Tiles (C2SP tlog-tiles): the tree's hashes in runs of 256, and the entries in bundles.

A hash tile at level L holds hashes of perfect subtrees of ``256 ** L`` leaves; a bundle holds the
entries of one tile at level 0. Both are immutable once they are full.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.formats.tlog.merkle import HASH_SIZE, HashReader, TreeNode, node_hash

HEIGHT: Final = 8
WIDTH: Final = 1 << HEIGHT
_MOST_LEVELS = 8  # 256 ** 8 is 2 ** 64 leaves
_LONGEST_ENTRY = (1 << 16) - 1
_PATH = re.compile(r"tile/(0|[1-9][0-9]?|entries)/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]*))?")


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """The *index*-th tile at *level*, of *width* hashes; a bundle of as many entries at ENTRIES."""

    ENTRIES = -1

    level: int
    index: int
    width: int = WIDTH

    def __post_init__(self) -> None:
        if not (
            self.ENTRIES <= self.level < _MOST_LEVELS
            and 0 <= self.index < 1 << (64 - HEIGHT)
            and 0 < self.width <= WIDTH
        ):
            raise InputError(f"there is no tile {self.index} of width {self.width}")

    @classmethod
    def parse(cls, path: str) -> Self:
        """Read a path such as ``tile/0/x001/067.p/12``; any but its one spelling is refused."""
        match = _PATH.fullmatch(path)
        if match is None or len(path) > 100:
            raise InputError(f"{path[:100]!r} is not the path of a tile")
        level = cls.ENTRIES if match[1] == "entries" else int(match[1])
        index = int(match[2].replace("x", "").replace("/", ""))
        tile = cls(level, index, int(match[3]) if match[3] else WIDTH)
        if tile.path != path:
            raise InputError(f"{path!r} is not the path of a tile: it would be {tile.path}")
        return tile

    @property
    def path(self) -> str:
        """Where the tile lies below a log's prefix."""
        digits = str(self.index)
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
        number = "".join(f"x{group}/" for group in groups[:-1]) + groups[-1]
        level = "entries" if self.level == self.ENTRIES else str(self.level)
        partial = "" if self.is_full else f".p/{self.width}"
        return f"tile/{level}/{number}{partial}"

    @property
    def is_full(self) -> bool:
        """Whether it is as wide as it will ever be."""
        return self.width == WIDTH

    @property
    def full(self) -> Tile:
        """The tile that this one grows into."""
        return Tile(self.level, self.index)

    @property
    def leaf_range(self) -> range:
        """The leaves under it."""
        size = 1 << (HEIGHT * max(self.level, 0))
        first = self.index * WIDTH * size
        return range(first, first + self.width * size)


def tiles_of(size: int, level: int = 0) -> Iterator[Tile]:
    """Yield the tiles at *level* (bundles at ``Tile.ENTRIES``) of a tree of *size* leaves."""
    hashes = size >> (HEIGHT * max(level, 0))
    for index in range(hashes // WIDTH):
        yield Tile(level, index)
    if hashes % WIDTH:
        yield Tile(level, hashes // WIDTH, hashes % WIDTH)


def new_tiles(old: int, new: int) -> Iterator[Tile]:
    """Yield the hash tiles that a tree of *new* leaves has and one of *old* leaves had not."""
    for level in range(_MOST_LEVELS):
        before, after = old >> (HEIGHT * level), new >> (HEIGHT * level)
        if after == 0:
            return
        if before == after:
            continue
        for index in range(before // WIDTH, -(-after // WIDTH)):
            yield Tile(level, index, min(WIDTH, after - index * WIDTH))


def build_tiles(tiles: Sequence[Tile], read: HashReader) -> list[bytes]:
    """Return the bytes of each of the hash tiles."""
    nodes = [
        TreeNode(tile.level * HEIGHT, tile.index * WIDTH + i)
        for tile in tiles
        for i in range(tile.width)
    ]
    hashes = iter(read(nodes))
    return [b"".join(next(hashes) for _ in range(tile.width)) for tile in tiles]


def tile_of(node: TreeNode, size: int) -> Tile:
    """Return the tile that *node*'s hash comes from, as wide as it is in a tree of *size*."""
    level, height = divmod(node.level, HEIGHT)
    index = (node.number << height) // WIDTH
    hashes = size >> (HEIGHT * level)
    return Tile(level, index, min(WIDTH, hashes - index * WIDTH))


def read_from_tiles(
    size: int, read_tiles: Callable[[Sequence[Tile]], Sequence[bytes]]
) -> HashReader:
    """Return a reader over the tiles of a tree of *size*; each tile is read once.

    The tiles are believed: what is computed from them proves nothing until it is checked against a
    signed tree head.
    """
    known: dict[Tile, bytes] = {}
    hashed: dict[TreeNode, bytes] = {}

    def hash_of(node: TreeNode) -> bytes:
        if node not in hashed:
            tile = tile_of(node, size)
            hashed[node] = _hash_in(tile, known[tile], node)
        return hashed[node]

    def read(nodes: Sequence[TreeNode]) -> list[bytes]:
        wanted = {tile_of(node, size) for node in nodes}
        missing = sorted(wanted - known.keys())
        for tile, data in zip(missing, read_tiles(missing), strict=True):
            _check_tile(tile, data)
            known[tile] = data
        return [hash_of(node) for node in nodes]

    return read


def _check_tile(tile: Tile, data: bytes) -> None:
    """Raise ``CheckedFalse`` unless *data* is as long as the hash tile is."""
    if len(data) != tile.width * HASH_SIZE:
        raise CheckedFalse(
            f"{tile.path} has {len(data)} bytes; {tile.width} hashes have {tile.width * HASH_SIZE}"
        )


def _hash_in(tile: Tile, data: bytes, node: TreeNode) -> bytes:
    height = node.level - tile.level * HEIGHT
    first = (node.number << height) - tile.index * WIDTH
    hashes = [
        data[i * HASH_SIZE : (i + 1) * HASH_SIZE] for i in range(first, first + (1 << height))
    ]
    while len(hashes) > 1:
        hashes = [node_hash(*hashes[i : i + 2]) for i in range(0, len(hashes), 2)]
    return hashes[0]


def encode_entries(entries: Sequence[bytes]) -> bytes:
    """Return the bundle of *entries*: each after its length in two bytes, big-endian."""
    for entry in entries:
        if len(entry) > _LONGEST_ENTRY:
            raise InputError(f"an entry of {len(entry)} bytes is too long for a log of tiles")
    return b"".join(struct.pack(">H", len(entry)) + entry for entry in entries)


def decode_entries(tile: Tile, data: bytes) -> tuple[bytes, ...]:
    """Return the entries of a bundle; ``CheckedFalse`` unless it holds exactly *tile*'s."""
    entries, at = [], 0
    while at < len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if at + 2 > len(data) or end > len(data):
            raise CheckedFalse(f"{tile.path} ends in the middle of an entry")
        entries.append(data[at + 2 : end])
        at = end
    if len(entries) != tile.width:
        raise CheckedFalse(f"{tile.path} holds {len(entries)} entries, not {tile.width}")
    return tuple(entries)
