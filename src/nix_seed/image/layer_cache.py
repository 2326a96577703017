"""Finished layers on disk, by layer key: what makes a second run read and compress nothing.

::

    DIR/layers/<key>.json     a record: descriptor, diffID, frames
    DIR/blobs/<digest hex>    the blob

A record is written after its blob, both atomically, so an interrupted run leaves whole layers only.
A blob is hashed again before it is used: bytes are what a digest is made of, and a disk is not to
be trusted. (That is some ten times faster than making it.) What does not match is removed, and
the layer made anew. Processes may share the directory; none waits for another. Records alone
remember layers whose blobs are in a registry.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.core.files import explained, read_regular, unnamed, write_atomically
from nix_seed.formats.oci.manifest import Descriptor
from nix_seed.image.rules.frames import Sink
from nix_seed.image.rules.layer import FinishedLayer
from nix_seed.registry.layout import is_blob


class LayerRecords:
    """Records by layer key in *directory*, without blobs: those are elsewhere, in a registry."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def find(self, key: str) -> FinishedLayer | None:
        """Return what is remembered under *key*; a damaged record counts as none."""
        path = self._directory / f"{key}.json"
        try:
            return FinishedLayer.parse(read_regular(path), str(path))
        except (CouldNotCheck, InputError):
            return None

    def save(self, key: str, layer: FinishedLayer) -> None:
        """Remember *layer* under *key*."""
        write_atomically(self._directory / f"{key}.json", layer.dump())


# Older than any run that could still be writing it.
_ABANDONED: Final = 24 * 3600


class LayerCache:
    """The cache in *directory*, made when first written to. A ``LayerTarget``."""

    def __init__(self, directory: Path) -> None:
        self._layers = directory / "layers"
        self._records = LayerRecords(self._layers)
        self._blobs = directory / "blobs"

    def blob_path(self, digest: Digest) -> Path:
        """Where the blob *digest* lies, if it is there. Never to be written to."""
        return self._blobs / digest.hex

    def find(self, key: str) -> FinishedLayer | None:
        """Return the layer of *key* if record and blob are there and whole; else ``None``."""
        record, layer = self._layers / f"{key}.json", self._records.find(key)
        if layer is None:
            return None
        if not _holds(self.blob_path(layer.descriptor.digest), layer.descriptor):
            _remove(record)
            _remove(self.blob_path(layer.descriptor.digest))
            return None
        # The time of last use. A cache that may only be read is still a cache.
        with suppress(OSError):
            os.utime(record)
        return layer

    def write(self, key: str, produce: Callable[[Sink], FinishedLayer]) -> FinishedLayer:
        """Give *produce* a file to write to and keep it under *key*; if it raises, keep nothing."""
        with unnamed(self._blobs, f"writing a layer to {self._blobs}") as file:
            layer = produce(file)
            # Read-only, for image layouts may link it.
            file.keep(self.blob_path(layer.descriptor.digest), 0o444)
        self._records.save(key, layer)
        return layer

    def prune(self, max_bytes: int, *, dry: bool = False) -> int:
        """Remove the layers used longest ago until at most *max_bytes* remain; return bytes freed.

        Blobs without a record and temporary files of runs that died go first. Removing a blob
        leaves an image layout that linked it intact. *dry* only counts.
        """
        remove = _size if dry else _remove
        with explained(f"pruning {self._blobs.parent}"):
            freed = sum(remove(path) for path in self._abandoned())
            kept: set[Path] = set()
            left = max_bytes
            for record, blob in self._by_last_use(remove):
                size = _size(record) + (0 if blob in kept else _size(blob))
                if size <= left:
                    left -= size
                    kept.add(blob)
                    continue
                left = -1  # whatever was used before this one goes too
                freed += remove(record) + (0 if blob in kept else remove(blob))
            return freed

    def _by_last_use(self, remove: Callable[[Path], int]) -> Iterator[tuple[Path, Path]]:
        """Yield (record, blob), the last used first; *remove* records that cannot be read."""
        records = sorted(self._layers.glob("*.json"), key=_last_use, reverse=True)
        for record in records:
            layer = self._records.find(record.stem)
            if layer is None:
                remove(record)
            else:
                yield record, self.blob_path(layer.descriptor.digest)

    def _abandoned(self) -> Iterator[Path]:
        recorded = {blob for _, blob in self._by_last_use(_size)}
        oldest = time.time() - _ABANDONED
        for path in [*self._blobs.glob("*"), *self._blobs.glob(".*"), *self._layers.glob(".*.tmp")]:
            if path not in recorded and _last_use(path) < oldest:
                yield path


def _holds(blob: Path, descriptor: Descriptor) -> bool:
    try:
        return is_blob(blob, descriptor)
    except (OSError, CouldNotCheck):
        return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0


def _remove(path: Path) -> int:
    """Remove a file that another process may have removed already; return the bytes freed."""
    size = _size(path)
    try:
        path.unlink()
    except OSError:
        return 0
    return size
