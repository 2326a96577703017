"""Merkle trees as RFC 6962, section 2.1, hashes them: roots, inclusion and consistency proofs.

Free functions over small values, with no storage of their own. A ``HashReader`` gives the hashes of
*perfect* subtrees: ``Node(level, number)`` covers the leaves from ``number << level`` on, ``1 <<
level`` of them. Every hash of every proof is a fold of such nodes, so a reader over a list of
leaves, over tiles on disk or over tiles on the network is all that making proofs takes.

Tiles (C2SP tlog-tiles): the tree's hashes in runs of 256, and the entries in bundles.

A hash tile at level L holds hashes of perfect subtrees of ``256 ** L`` leaves; a bundle holds the
entries of one tile at level 0. Both are immutable once they are full.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, Self

from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.core.values import dataclass

HASH_SIZE: Final = 32
EMPTY_ROOT: Final = hashlib.sha256().digest()
_MOST_LEAVES = 1 << 63

Proof = tuple[bytes, ...]
"""The hashes of a proof, in RFC 6962's order, 32 bytes each."""


class TreeNode(NamedTuple):
    """A perfect subtree: the *number*-th run of ``2 ** level`` leaves."""

    level: int
    number: int


HashReader = Callable[[Sequence[TreeNode]], Sequence[bytes]]
"""Returns the hash of each node asked for; they are asked for together, to be fetched at once."""


@dataclass(frozen=True, slots=True)
class TreeHead:
    """The *root* (32 bytes) of a tree of *size* leaves."""

    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not 0 <= self.size < _MOST_LEAVES:
            raise InputError(f"{self.size} is no size of a tree")
        if len(self.root) != HASH_SIZE:
            raise InputError(f"a root hash has {HASH_SIZE} bytes, not {len(self.root)}")

    def __str__(self) -> str:
        return f"{self.root.hex()[:16]}… at size {self.size}"


EMPTY: Final = TreeHead(0, EMPTY_ROOT)
"""The tree before its first leaf."""


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of the leaf that holds *data*."""
    return hashlib.sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of the node over two subtrees."""
    return hashlib.sha256(b"\1" + left + right).digest()


def read_from_leaves(leaves: Sequence[bytes]) -> HashReader:
    """Return a reader over the leaf hashes *leaves*; each perfect subtree is hashed once."""
    return read_appended(0, lambda _: [], leaves)


def read_appended(size: int, read: HashReader, leaves: Sequence[bytes]) -> HashReader:
    """Return a reader over a tree of *size* leaves, read by *read*, and *leaves* after them."""
    known: dict[TreeNode, bytes] = {}

    def read_one(node: TreeNode) -> bytes:
        if node not in known:
            known[node] = make(node)
        return known[node]

    def make(node: TreeNode) -> bytes:
        level, number = node
        if (number + 1) << level <= size:
            return read([node])[0]
        if level == 0:
            return leaves[number - size]
        left, right = TreeNode(level - 1, 2 * number), TreeNode(level - 1, 2 * number + 1)
        return node_hash(read_one(left), read_one(right))

    return lambda nodes: [read_one(node) for node in nodes]


def build_root(size: int, read: HashReader) -> TreeHead:
    """Return the head of the tree of the first *size* leaves."""
    if size == 0:
        return EMPTY
    return TreeHead(size, _range_hashes([(0, size)], read)[0])


def build_inclusion_proof(index: int, size: int, read: HashReader) -> Proof:
    """Return the proof that leaf *index* is in the tree of *size* leaves (``PATH`` of 2.1.1)."""
    if not 0 <= index < size:
        raise InputError(f"a tree of {size} leaves has no leaf {index}")
    ranges = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            ranges.append((middle, high))
            high = middle
        else:
            ranges.append((low, middle))
            low = middle
    return _range_hashes(ranges[::-1], read)


def build_consistency_proof(old: int, new: int, read: HashReader) -> Proof:
    """Return the proof that the tree of *old* leaves begins that of *new* (``PROOF`` of 2.1.2).

    It is empty where there is nothing to prove: equal sizes, or *old* 0.
    """
    if not 0 <= old <= new:
        raise InputError(f"no tree of {old} leaves begins one of {new}")
    ranges = []
    low, high = 0, new
    while 0 < old < high:
        middle = low + _split(high - low)
        if old <= middle:
            ranges.append((middle, high))
            high = middle
        else:
            ranges.append((low, middle))
            low = middle
    if low > 0:
        ranges.append((low, high))
    return _range_hashes(ranges[::-1], read)


def check_inclusion(proof: Proof, index: int, leaf: bytes, head: TreeHead) -> None:
    """Raise ``CheckedFalse`` unless *proof* shows the leaf hash *leaf* at *index* under *head*.

    The steps are those of RFC 9162, 2.1.3.2.
    """
    if not 0 <= index < head.size:
        raise CheckedFalse(f"leaf {index} cannot be in a tree of {head.size} leaves")
    _check_hashes((leaf, *proof))
    label, root = f"the inclusion proof of leaf {index}", leaf
    for sibling, is_left in _climb(index, head.size - 1, proof, label):
        root = node_hash(sibling, root) if is_left else node_hash(root, sibling)
    if root != head.root:
        raise CheckedFalse(f"{label} does not lead to the root {head}")


def check_consistency(proof: Proof, old: TreeHead, new: TreeHead) -> None:
    """Raise ``CheckedFalse`` unless *proof* shows that the tree *old* begins the tree *new*.

    The steps are those of RFC 9162, 2.1.4.2.
    """
    if old.size > new.size:
        raise CheckedFalse(f"the tree of size {old.size} cannot begin a smaller one of {new.size}")
    if old.size in (0, new.size):
        _check_trivial(proof, old, new)
        return
    _check_hashes(proof)
    label = f"the consistency proof from size {old.size} to {new.size}"
    # A perfect old tree is a node of the new one; its hash is then known and left out.
    hashes = proof if old.size & (old.size - 1) else (old.root, *proof)
    if not hashes:
        raise CheckedFalse(f"{label} has hashes too few")
    fn, sn = old.size - 1, new.size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    older = newer = hashes[0]
    for sibling, is_left in _climb(fn, sn, hashes[1:], label):
        if is_left:
            older = node_hash(sibling, older)
        newer = node_hash(sibling, newer) if is_left else node_hash(newer, sibling)
    if older != old.root:
        raise CheckedFalse(f"{label} does not lead to the older root")
    if newer != new.root:
        raise CheckedFalse(f"{label} does not lead to the newer root")


def _climb(fn: int, sn: int, hashes: Proof, label: str) -> Iterator[tuple[bytes, bool]]:
    """Yield each of *hashes* on the way from node *fn* up, and whether it is on the left.

    *sn* is the last node of that level. ``CheckedFalse`` where the way has not as many steps.
    """
    for sibling in hashes:
        if sn == 0:
            raise CheckedFalse(f"{label} has hashes too many")
        is_left = bool(fn & 1) or fn == sn
        yield sibling, is_left
        while is_left and not fn & 1 and fn:
            fn, sn = fn >> 1, sn >> 1
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise CheckedFalse(f"{label} has hashes too few")


def _check_trivial(proof: Proof, old: TreeHead, new: TreeHead) -> None:
    if proof:
        label = f"the consistency proof from size {old.size} to {new.size}"
        raise CheckedFalse(f"{label} has hashes too many")
    if old.size == 0 and old.root != EMPTY_ROOT:
        raise CheckedFalse("the root of an empty tree is not the hash of nothing")
    if old.size == new.size and old.root != new.root:
        raise CheckedFalse(f"two trees of size {old.size} have different roots: {old}, {new}")


def _check_hashes(hashes: Sequence[bytes]) -> None:
    for value in hashes:
        if len(value) != HASH_SIZE:
            raise CheckedFalse(f"a hash of the proof has {len(value)} bytes, not {HASH_SIZE}")


def _split(size: int) -> int:
    """Return the largest power of two below *size*."""
    return 1 << ((size - 1).bit_length() - 1)


def _perfect(low: int, high: int) -> list[TreeNode]:
    """Return the perfect subtrees of the leaves from *low* to *high*, the larger ones first.

    *low* is a multiple of a power of two that is no less than the range, as in every proof.
    """
    nodes = []
    while low < high:
        level = (high - low).bit_length() - 1
        nodes.append(TreeNode(level, low >> level))
        low += 1 << level
    return nodes


def _range_hashes(ranges: Sequence[tuple[int, int]], read: HashReader) -> Proof:
    """Return the hash of each range, reading the nodes of all of them at once."""
    nodes = [_perfect(low, high) for low, high in ranges]
    hashes = iter(read([node for group in nodes for node in group]))
    return tuple(_fold([next(hashes) for _ in group]) for group in nodes)


def _fold(hashes: Sequence[bytes]) -> bytes:
    *rest, root = hashes
    for left in reversed(rest):
        root = node_hash(left, root)
    return root


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
