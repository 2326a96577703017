"""A layer: its key, known before a byte is read, and its bytes.

A layer of store paths is frames upon frames: first ``nix/`` and ``nix/store/``, then for each path,
in order of base name, its own frames, last the end of the tar. So the frames of a path are the same
in whatever layer it lies, and a reader can fetch just them.

Inside a path, entries come as in its NAR: a directory, then its entries by the bytes of their
names, depth first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.formats.oci import tar
from nix_seed.formats.oci.descriptor import Descriptor
from nix_seed.formats.seekable import Frame, SeekTable
from nix_seed.ground import canonical_json
from nix_seed.ground.digests import DiffID
from nix_seed.ground.errors import InputError
from nix_seed.rules.compress import Compressor
from nix_seed.rules.format import FORMAT
from nix_seed.rules.frames import Alone, Framed, FramePool, FrameWriter, Sink
from nix_seed.rules.path_writer import write_path
from nix_seed.rules.store_reader import StoreReader

__all__ = ["FinishedLayer", "layer_key", "write_entries_layer", "write_layer"]

_PARENTS = (b"nix/", b"nix/store/")


@dataclass(frozen=True, slots=True)
class FinishedLayer:
    """What there is to know of a layer once it is written.

    ``tar_size`` is that of the uncompressed tar, in bytes. ``starts`` pairs each store path, in
    order, with the number of its first frame; its last is the one before the next path's first.
    """

    descriptor: Descriptor
    diff_id: DiffID
    tar_size: int
    frames: tuple[Frame, ...]
    starts: tuple[tuple[StorePath, int], ...] = ()

    def span(self, path: StorePath) -> tuple[int, int]:
        """Return offset and size in bytes of the part of the blob that holds just *path*.

        Raises ``InputError`` if the layer does not hold it.
        """
        numbers = [number for held, number in self.starts if held == path]
        if not numbers:
            raise InputError(f"{path} does not lie in the layer {self.descriptor.digest}")
        later = [number for _, number in self.starts if number > numbers[0]]
        # After the last path there is one more frame, the end of the tar.
        end = min(later, default=len(self.frames) - 1)
        offsets = SeekTable(self.frames).offsets()
        return offsets[numbers[0]], offsets[end] - offsets[numbers[0]]


def layer_key(paths: Sequence[PathInfo], compressor: Compressor) -> str:
    """Return the SHA-256, in hex, of all that decides the bytes of a layer of *paths*."""
    value = {
        "format": FORMAT,
        "compressor": compressor.to_json(),
        "paths": [[str(info.path), str(info.nar_hash)] for info in _in_order(paths)],
    }
    return hashlib.sha256(canonical_json.dumps(value)).hexdigest()


def write_layer(
    paths: Sequence[PathInfo],
    compressor: Compressor,
    store: StoreReader,
    sink: Sink,
    pool: FramePool | None = None,
) -> FinishedLayer:
    """Write the blob of the layer of *paths*, in any order, to *sink*; return what it is.

    Raises ``CheckedFalse`` if a path is not what its ``PathInfo`` says: whatever *sink* took is
    then void. Without a *pool* all work is done by the calling thread.
    """
    compressor.check_at_hand()
    ordered = _in_order(paths)
    starts: list[tuple[StorePath, int]] = []
    with FrameWriter(compressor, sink, pool or Alone()) as out:
        for parent in _PARENTS:
            out.put(tar.header(parent, tar.DIRECTORY, 0o755))
        for info in ordered:
            starts.append((info.path, out.cut()))
            write_path(info, store, out)
        out.cut()
        out.put(tar.END)
        return _finished(out.finish(), compressor, tuple(starts))


def write_entries_layer(
    entries: Iterable[tar.Entry], compressor: Compressor, sink: Sink, pool: FramePool | None = None
) -> FinishedLayer:
    """Write a layer of *entries*, sorted, with every parent directory; return what it is."""
    compressor.check_at_hand()
    with FrameWriter(compressor, sink, pool or Alone()) as out:
        for entry in tar.in_order(entries):
            _put_entry(entry, out)
        out.put(tar.END)
        return _finished(out.finish(), compressor, ())


def _put_entry(entry: tar.Entry, out: FrameWriter) -> None:
    if entry.kind == tar.DIRECTORY:
        out.put(tar.header(entry.name + b"/", entry.kind, entry.mode))
    elif entry.kind == tar.SYMLINK:
        out.put(tar.header(entry.name, entry.kind, 0o777, target=entry.data))
    else:
        out.put(tar.header(entry.name, entry.kind, entry.mode, len(entry.data)))
        out.put(entry.data)
        out.put(tar.padding(len(entry.data)))


def _finished(
    framed: Framed, compressor: Compressor, starts: tuple[tuple[StorePath, int], ...]
) -> FinishedLayer:
    return FinishedLayer(
        descriptor=Descriptor(compressor.media_type, framed.digest, framed.size),
        diff_id=framed.diff_id,
        tar_size=framed.tar_size,
        frames=framed.frames,
        starts=starts,
    )


def _in_order(paths: Sequence[PathInfo]) -> list[PathInfo]:
    ordered = sorted(paths, key=lambda info: info.path)
    if not ordered:
        raise InputError("a layer needs at least one store path")
    for one, other in pairwise(ordered):
        if one.path == other.path:
            raise InputError(f"{one.path} is given twice for one layer")
    return ordered
