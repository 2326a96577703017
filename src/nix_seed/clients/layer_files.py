"""The files of one layer, in whatever store it lies: listed by their digests, or unpacked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nix_seed.clients.blobs import ImageStore
from nix_seed.clients.tar_pieces import TarPieces
from nix_seed.clients.tar_reader import Entry, Kind, read_entries
from nix_seed.clients.unpack_layer import unpack_layer
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.formats.oci.descriptor import Descriptor
from nix_seed.ground.errors import CheckedFalse

__all__ = ["FileFacts", "list_files", "unpack_to"]

_LARGEST_LAYER = 1 << 40  # bytes of tar
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file as ``ls`` would show it: *what* it is, and the SHA-256 of its bytes or its target."""

    what: str
    content: str


def list_files(store: ImageStore, layer: Descriptor, path: StorePath) -> dict[str, FileFacts]:
    """Return every file of *path*, by its name below it (the path itself is ``.``).

    Raises ``CheckedFalse`` for a layer that is not what its descriptor says.
    """
    root = str(path).removeprefix("/").encode()
    found: dict[str, FileFacts] = {}
    with _opened(store, layer) as (pieces, what):
        for entry in read_entries(pieces, what):  # type: ignore[arg-type]
            if entry.name == root or entry.name.startswith(root + b"/"):
                name = entry.name[len(root) + 1 :].decode("utf-8", "backslashreplace") or "."
                found[name] = _facts(entry, pieces)
        pieces.drain()
    return found


def unpack_to(store: ImageStore, layer: Descriptor, directory: Path) -> None:
    """Unpack all of *layer* below *directory*, which nothing in it can leave."""
    with _opened(store, layer) as (pieces, what):
        unpack_layer(pieces, directory, what, _LARGEST_LAYER)  # type: ignore[arg-type]
        pieces.drain()


@contextmanager
def _opened(store: ImageStore, layer: Descriptor) -> Iterator[tuple[TarPieces, str]]:
    what = f"the layer {layer.digest}"
    with TarPieces(store.open_blob(layer), layer.media_type, _LARGEST_LAYER, what, 2) as pieces:
        yield pieces, what


def _facts(entry: Entry, pieces: TarPieces) -> FileFacts:
    if entry.kind is not Kind.FILE:
        return FileFacts(entry.kind.name.lower(), entry.target.decode("utf-8", "backslashreplace"))
    state, left = hashlib.sha256(), entry.size
    while left:
        piece = pieces.read(min(left, _PIECE))
        if not piece:
            raise CheckedFalse(f"a layer ends in the middle of {entry.name!r}")
        state.update(piece)
        left -= len(piece)
    what = "program" if entry.mode & 0o111 else "file"
    return FileFacts(f"{what} of {entry.size} bytes", f"sha256:{state.hexdigest()}")
