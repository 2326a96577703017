"""What the assembler wants of a store: to walk a path, and to read its files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol

from nix_seed.formats.nix.store_path import StorePath

__all__ = ["DIRECTORY", "FILE", "SYMLINK", "Node", "StoreReader"]

FILE: Final = 0
SYMLINK: Final = 1
DIRECTORY: Final = 2


class Node(NamedTuple):
    """One file system object of a store path. (A tuple, for there are very many of them.)

    ``below`` is its place under the store path, empty for the path itself, else ``b"/bin/sh"``.
    ``size`` and ``executable`` are a file's, ``target`` a symlink's; ``source`` is the reader's.
    """

    kind: int
    below: bytes
    name: bytes
    depth: int
    size: int = 0
    executable: bool = False
    target: bytes = b""
    source: bytes = b""


class StoreReader(Protocol):
    """Reads one store. What vanished raises ``CheckedFalse``, other trouble ``CouldNotCheck``."""

    def walk(self, path: StorePath) -> Iterator[Node]:
        """Yield the path's nodes, a directory before its entries, those by the bytes of names."""
        ...

    def open(self, path: StorePath, node: Node) -> int:
        """Open a file node; the handle goes to ``read`` and at last to ``close``."""
        ...

    def read(self, handle: int, view: memoryview) -> int:
        """Fill *view* from the front with what comes next; return the bytes read, 0 at the end."""
        ...

    def close(self, handle: int) -> None:
        """Give the handle back."""
        ...
