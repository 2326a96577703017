"""Where the files of a tile log lie: a directory, or (``http``) a server."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from nix_seed.clients.files import explained
from nix_seed.formats.tlog.merkle import HASH_SIZE
from nix_seed.formats.tlog.tile import Tile
from nix_seed.ground.errors import CouldNotCheck

__all__ = ["DirectorySource", "TileSource", "read_tile", "read_tiles"]

_AT_ONCE = 8


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
        try:
            with explained(f"reading {path} of the log in {self}"):
                return (self._directory / path).read_bytes()
        except CouldNotCheck as error:
            if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                return None
            raise

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
