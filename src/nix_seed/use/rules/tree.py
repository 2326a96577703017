"""The store that an image's table of contents describes, as a file system's numbers and names."""

from bisect import bisect_right
from collections.abc import Collection, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

from nix_seed.image.rules.contents import EXECUTABLE, FOLDER, LayerContents

ROOT: Final = 1
"""The number of the store directory itself."""

_FIRST: Final = 2


class FileNode(NamedTuple):
    """What ``stat`` tells of a file: its kind, as the table has it, and its size in bytes."""

    kind: int
    size: int


class Piece(NamedTuple):
    """Bytes *start* to *end* of what a frame holds."""

    layer: int
    frame: int
    start: int
    end: int


class StoreTree:
    """Files by number. Numbers are given out here, and any other is refused with ``KeyError``.

    *shown* are the base names of store paths that the tree has; None means all. Of two layers that
    hold a path of one name, the later wins. Thread-safe: what is kept is only ever added to.
    """

    def __init__(self, layers: Sequence[LayerContents], shown: Collection[bytes] | None) -> None:
        self._layers = layers
        self._bases = list(accumulate((len(layer.kinds) for layer in layers), initial=_FIRST))
        roots = {
            layer.names[node]: base + node
            for layer, base in zip(layers, self._bases, strict=False)
            for node in layer.roots()
            if shown is None or layer.names[node] in shown
        }
        self._entries: dict[int, dict[bytes, int]] = {ROOT: roots}

    def stat(self, number: int) -> FileNode:
        """Return kind and size of a file."""
        if number == ROOT:
            return FileNode(FOLDER, 0)
        layer, node = self._at(number)
        kind = layer.kinds[node]
        return FileNode(kind, 0 if kind == FOLDER else layer.sizes[node])

    def entries(self, number: int) -> dict[bytes, int]:
        """Return the numbers of what lies in a directory, by name; nothing lies in a file."""
        found = self._entries.get(number)
        if found is None:
            layer, node = self._at(number)
            if layer.kinds[node] != FOLDER:
                return {}
            base = number - node
            found = {layer.names[entry]: base + entry for entry in layer.entries(node)}
            self._entries[number] = found
        return found

    def has(self, *names: str) -> bool:
        """Whether there is a file of these names, each in the one before."""
        number = ROOT
        for name in names:
            found = self.entries(number).get(name.encode())
            if found is None:
                return False
            number = found
        return True

    def target(self, number: int) -> bytes:
        """Return a symlink's target."""
        layer, node = self._at(number)
        return layer.targets[node]

    def pieces(self, number: int, offset: int, size: int) -> list[Piece]:
        """Return where *size* bytes of a file from *offset* on lie; fewer at its end."""
        position = self._position(number)
        layer, node = self._layers[position], number - self._bases[position]
        if layer.kinds[node] > EXECUTABLE:
            raise KeyError(number)
        end = layer.offsets[node] + min(layer.sizes[node], offset + size)
        at = layer.offsets[node] + offset
        frame = bisect_right(layer.starts, at) - 1
        found = []
        while at < end:
            start, after = layer.starts[frame], layer.starts[frame + 1]
            found.append(Piece(position, frame, at - start, min(end, after) - start))
            at, frame = after, frame + 1
        return found

    def _position(self, number: int) -> int:
        if not _FIRST <= number < self._bases[-1]:
            raise KeyError(number)
        return bisect_right(self._bases, number) - 1

    def _at(self, number: int) -> tuple[LayerContents, int]:
        position = self._position(number)
        return self._layers[position], number - self._bases[position]
