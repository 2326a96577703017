"""Layers read back by other means than the product's."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import zstandard

from nix_seed.formats.oci.manifest import MediaType
from nix_seed.image.rules.frames import Sink
from nix_seed.image.rules.layer import FinishedLayer


class Memory:
    """A ``LayerTarget`` that keeps blobs in memory and finds nothing."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def find(self, key: str) -> FinishedLayer | None:
        return None

    def write(self, key: str, produce: Callable[[Sink], FinishedLayer]) -> FinishedLayer:
        sink = io.BytesIO()
        layer = produce(sink)
        self.blobs[key] = sink.getvalue()
        return layer


def decompress(layer: FinishedLayer, blob: bytes) -> bytes:
    """The layer's tar."""
    if layer.descriptor.media_type == MediaType.LAYER_GZIP:
        return gzip.decompress(blob)
    reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(blob), read_across_frames=True)
    return reader.read()


def members(tar: bytes) -> list[tarfile.TarInfo]:
    """The tar's members, names with surrogate escapes."""
    with tarfile.open(fileobj=io.BytesIO(tar), encoding="utf-8", errors="surrogateescape") as file:
        return file.getmembers()


def unpack_store(tar: bytes, root: Path) -> None:
    """Unpack a layer as root file system, permissions left open enough to remove it again."""
    with tarfile.open(fileobj=io.BytesIO(tar), encoding="utf-8", errors="surrogateescape") as file:
        file.extractall(root, filter="fully_trusted")
