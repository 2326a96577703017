"""The table of contents of an image: every file of every layer, and where its bytes lie.

A pure function of the layers, and part of the last one (``/etc/nix-seed/contents``), so that an
image can be mounted before it is fetched. Names come in the order of the tar, which is the order of
a NAR, and positions are sums of sizes. So no two files can overlap, nothing can lie outside of its
layer, and no directory can hold itself: such a table cannot be written down.

All integers are little endian. The file::

    "NSTABLE" 0x01  number of layers (4)  { size in bytes (4)  layer }

and a layer, as columns, which compress well::

    number of frames (4)  of nodes (4)  bytes of names (4)  bytes of link targets (4)
    each frame's compressed size (4)  each frame's size (4)  each frame's SHA-256 (32)
    each node's kind (1)  512-byte blocks of its tar header (2)  size (8)
    names, separated by NUL  link targets, one after the other

Frames are those of the compressed blob, with the SHA-256 of their compressed bytes. Kinds are
0 file, 1 executable file, 2 symlink, 3 directory; modes follow from them (0444, 0555, 0777, 0555).
A size is that of a file in bytes, that of a link's target, or the number of a directory's entries.
"""

# Python 3.11 cannot subscript the array of an annotation.
from __future__ import annotations

import hashlib
import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final, NamedTuple, Self

from nix_seed.core.errors import InputError
from nix_seed.core.values import dataclass
from nix_seed.formats.oci import tar
from nix_seed.formats.zstd import Frame, SeekTable
from nix_seed.image.rules.frames import FRAME_SIZE

PLAIN: Final = 0
EXECUTABLE: Final = 1
LINK: Final = 2
FOLDER: Final = 3

_MAGIC: Final = b"NSTABLE\x01"
_COUNT: Final = struct.Struct("<I")
_HEAD: Final = struct.Struct("<IIII")
_HASH: Final = 32
_LONGEST_NAME: Final = 255
_LONGEST_TARGET: Final = 4095
_MOST_LAYERS: Final = 1000
_PARENTS: Final = 2 * tar.BLOCK  # nix/ and nix/store/
# zstd's own bound for what cannot be compressed is less.
_LARGEST_FRAME: Final = FRAME_SIZE + (FRAME_SIZE >> 7) + 512


class HashedFrame(NamedTuple):
    """A frame's size in the blob, the size of what it holds, and its SHA-256 in the blob."""

    compressed: int
    size: int
    sha256: bytes

    @classmethod
    def of(cls, data: bytes | memoryview, size: int) -> Self:
        """Describe the compressed *data*, which holds *size* bytes."""
        return cls(len(data), size, hashlib.sha256(data).digest())


class ContentsWriter:
    """Takes the nodes of one layer in the order of its tar."""

    def __init__(self) -> None:
        self._kinds = bytearray()
        self._headers = array("H")
        self._sizes = array("Q")
        self._names: list[bytes] = []
        self._targets: list[bytes] = []
        self._open: list[int] = []  # the directories that the next node may be in, outermost first

    def add(self, kind: int, depth: int, name: bytes, size: int, header: int) -> None:
        """Add a node *depth* below its store path, whose tar header takes *header* bytes."""
        del self._open[depth:]
        if self._open:
            self._sizes[self._open[-1]] += 1
        if kind == FOLDER:
            self._open.append(len(self._kinds))
        self._kinds.append(kind)
        self._headers.append(header // tar.BLOCK)
        self._sizes.append(size)
        self._names.append(name)

    def add_link(self, depth: int, name: bytes, target: bytes, header: int) -> None:
        """Add a symlink."""
        self.add(LINK, depth, name, len(target), header)
        self._targets.append(target)

    def finish(self, frames: Sequence[HashedFrame]) -> bytes:
        """Return the layer's part of the table; its blob consists of *frames*."""
        names, targets = b"\0".join(self._names), b"".join(self._targets)
        return b"".join(
            (
                _HEAD.pack(len(frames), len(self._kinds), len(names), len(targets)),
                _little(array("I", (frame.compressed for frame in frames))),
                _little(array("I", (frame.size for frame in frames))),
                *(frame.sha256 for frame in frames),
                self._kinds,
                _little(self._headers),
                _little(self._sizes),
                names,
                targets,
            )
        )


@dataclass(frozen=True, slots=True)
class LayerContents:
    """What lies where in one layer. Nodes are numbered in the order of its tar.

    ``offsets`` says where a file's bytes begin in the uncompressed tar, ``ends`` which node comes
    after a node and all below it. ``starts`` and ``places`` say where each frame begins in the tar
    and in the blob, and last where the frames end.
    """

    frames: tuple[HashedFrame, ...]
    kinds: bytes
    sizes: Sequence[int]
    names: tuple[bytes, ...]
    targets: dict[int, bytes]
    offsets: tuple[int, ...]
    ends: Sequence[int]
    starts: tuple[int, ...]
    places: tuple[int, ...]

    def roots(self) -> Iterator[int]:
        """Yield the nodes that are store paths."""
        return self._siblings(0, len(self.kinds))

    def entries(self, directory: int) -> Iterator[int]:
        """Yield the nodes right below *directory*, by the bytes of their names."""
        return self._siblings(directory + 1, self.ends[directory])

    def _siblings(self, node: int, end: int) -> Iterator[int]:
        while node < end:
            yield node
            node = self.ends[node]

    def path(self, node: int) -> str:
        """Return where *node* lies below the store; what is no UTF-8 in names is replaced."""
        names, at = [], 0
        while at <= node:
            if self.ends[at] <= node:
                at = self.ends[at]
                continue
            names.append(self.names[at].decode(errors="replace"))
            at += 1
        return "/".join(names)

    @property
    def blob_size(self) -> int:
        """The bytes of the blob: its frames and the seek table."""
        return self.places[-1] + len(
            SeekTable(tuple(Frame(frame.compressed, frame.size) for frame in self.frames)).dump()
        )

    @classmethod
    def parse(cls, text: bytes, label: str) -> Self:
        """Read a layer's part of the table, no byte more or less; *label* names it in errors."""
        reader = _Columns(text, label)
        count, nodes, names_size, targets_size = _HEAD.unpack(reader.take(_HEAD.size))
        if not count or not nodes:
            raise InputError(f"{label} lists no frames, or no files")
        compressed, sizes = reader.array("I", count), reader.array("I", count)
        hashes = reader.take(_HASH * count)
        kinds = reader.take(nodes)
        headers, node_sizes = reader.array("H", nodes), reader.array("Q", nodes)
        names = tuple(reader.take(names_size).split(b"\0"))
        targets = reader.take(targets_size)
        reader.finish()
        if max(compressed) > _LARGEST_FRAME or max(sizes) > FRAME_SIZE or not min(sizes):
            raise InputError(f"{label} has a frame of a size that no frame has")
        if len(names) != nodes or max(kinds) > FOLDER or not min(headers):
            raise InputError(f"{label}: its columns do not belong together")
        _check_names(names, label)
        frames = tuple(
            HashedFrame(one, size, hashes[at : at + _HASH])
            for one, size, at in zip(compressed, sizes, range(0, len(hashes), _HASH), strict=True)
        )
        starts = tuple(accumulate(sizes, initial=0))
        return cls(
            frames=frames,
            kinds=kinds,
            sizes=node_sizes,
            names=names,
            targets=_targets(kinds, node_sizes, targets, label),
            offsets=_offsets(kinds, headers, node_sizes, starts[-1], label),
            ends=_ends(kinds, node_sizes, names, label),
            starts=starts,
            places=tuple(accumulate(compressed, initial=0)),
        )


def dump_contents(layers: Sequence[bytes]) -> bytes:
    """Return the table of an image of these *layers*, in the manifest's order without the last."""
    parts = [_MAGIC, _COUNT.pack(len(layers))]
    for layer in layers:
        parts += (_COUNT.pack(len(layer)), layer)
    return b"".join(parts)


def parse_contents(text: bytes, label: str) -> tuple[LayerContents, ...]:
    """Read the table of an image; ``InputError`` for any that ``dump_contents`` cannot write."""
    reader = _Columns(text, label)
    if reader.take(len(_MAGIC)) != _MAGIC:
        raise InputError(f"{label} is not a table of contents that this release reads")
    count = reader.number()
    if count > _MOST_LAYERS:
        raise InputError(f"{label} claims {count} layers")
    layers = []
    for number in range(count):
        part = reader.take(reader.number())
        layers.append(LayerContents.parse(part, f"{label}, layer {number + 1}"))
    reader.finish()
    return tuple(layers)


class _Columns:
    """Takes columns off the front of *text*."""

    def __init__(self, text: bytes, label: str) -> None:
        self._text = text
        self._label = label
        self._at = 0

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._text):
            raise InputError(f"{self._label} ends early")
        data = self._text[self._at : end]
        self._at = end
        return data

    def number(self) -> int:
        value: int = _COUNT.unpack(self.take(_COUNT.size))[0]
        return value

    def array(self, kind: str, count: int) -> array[int]:
        column = array(kind)
        column.frombytes(self.take(column.itemsize * count))
        if sys.byteorder == "big":
            column.byteswap()
        return column

    def finish(self) -> None:
        if self._at != len(self._text):
            raise InputError(f"{self._label} does not end where it should")


def _little(column: array[int]) -> bytes:
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()


def _check_names(names: tuple[bytes, ...], label: str) -> None:
    if b"/" in b"\0".join(names):
        raise InputError(f"{label} has a name with a slash in it")
    unique = set(names)
    if unique & {b"", b".", b".."} or len(max(unique, key=len)) > _LONGEST_NAME:
        raise InputError(f"{label} has a name that no file can have")


def _targets(kinds: bytes, sizes: Sequence[int], targets: bytes, label: str) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at, node = 0, kinds.find(LINK)
    while node >= 0:
        size = sizes[node]
        found[node] = targets[at : at + size]
        at += size
        if not 0 < size <= _LONGEST_TARGET or at > len(targets):
            raise InputError(f"{label} has a symlink whose target has {size} bytes")
        node = kinds.find(LINK, node + 1)
    if at != len(targets) or b"\0" in targets:
        raise InputError(f"{label}: symlinks and their targets do not belong together")
    return found


def _offsets(
    kinds: bytes, headers: Sequence[int], sizes: Sequence[int], total: int, label: str
) -> tuple[int, ...]:
    """Return where the bytes after each node's header begin; all of it must fill *total* bytes."""
    at, offsets = _PARENTS, []
    for kind, header, size in zip(kinds, headers, sizes, strict=True):
        at += header * tar.BLOCK
        offsets.append(at)
        if kind <= EXECUTABLE:
            at += size + (-size % tar.BLOCK)
    if at + len(tar.END) != total:
        raise InputError(f"{label}: its files fill {at} bytes of the {total} that its frames hold")
    return tuple(offsets)


def _ends(kinds: bytes, sizes: Sequence[int], names: Sequence[bytes], label: str) -> Sequence[int]:
    """Return which node follows each node's subtree; check that entries are there, in order."""
    count = len(kinds)
    ends = list(range(1, count + 1))
    # From the last: then the subtrees of entries are known before those of their directory.
    for node in range(count - 1, -1, -1):
        if kinds[node] != FOLDER:
            continue
        entry, last = node + 1, b""
        for _ in range(min(sizes[node], count)):
            if entry == count or names[entry] <= last:
                raise InputError(f"{label}: a directory's entries are out of order, or not there")
            last, entry = names[entry], ends[entry]
        ends[node] = entry
    node, last = 0, b""
    while node < count:
        if names[node] <= last:
            raise InputError(f"{label}: its store paths are out of order")
        last, node = names[node], ends[node]
    return ends
