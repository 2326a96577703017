"""A layer: its key, known before a byte is read, and its bytes.

A layer of store paths is frames upon frames: first ``nix/`` and ``nix/store/``, then for each path,
in order of base name, its own frames, last the end of the tar. So the frames of a path are the same
in whatever layer it lies, and a reader can fetch just them.

Inside a path, entries come as in its NAR: a directory, then its entries by the bytes of their
names, depth first. Each path is read once: into the tar, and through its NAR hash to see that it is
the path.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple, Protocol

from nix_seed.core import canonical_json
from nix_seed.core.declared import Declared
from nix_seed.core.digests import DiffID
from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.core.values import dataclass
from nix_seed.core.version import FORMAT
from nix_seed.formats.nix.nar import NarHasher
from nix_seed.formats.nix.store_path import STORE_DIR, PathInfo, StorePath
from nix_seed.formats.oci import tar
from nix_seed.formats.oci.manifest import Descriptor
from nix_seed.formats.zstd import Frame
from nix_seed.image.rules.contents import EXECUTABLE, FOLDER, PLAIN, ContentsWriter, HashedFrame
from nix_seed.image.rules.frames import Alone, Compressor, Framed, FramePool, FrameWriter, Sink

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


# Files up to this size are hashed together with their neighbours, to save calls.
_SMALL: Final = 32 << 10
_READ: Final = 512 << 10
_STORE: Final = STORE_DIR.removeprefix("/").encode() + b"/"


def write_path(
    info: PathInfo, store: StoreReader, out: FrameWriter, contents: ContentsWriter
) -> None:
    """Append the tar entries of *info*'s path to *out*, and list them in *contents*.

    Raises ``CheckedFalse`` if what was read is not what *info* says; then all of the blob is void.
    """
    writer = _PathWriter(info.path, store, out, contents)
    writer.write()
    found, size = writer.nar.finish(), writer.nar.size
    if size != info.nar_size:
        raise _changed(info.path, f"its NAR has {size} bytes where Nix recorded {info.nar_size}")
    if found != info.nar_hash:
        raise _changed(info.path, f"its NAR hash is {found} where Nix recorded {info.nar_hash}")


class NodeHeaders:
    """Spells the nodes of one store path, in order, for a tar; *nar* hashes them on the way.

    The bytes of a file are for whoever asks: they are to be added to *nar*, and the file ended.
    """

    def __init__(self, path: StorePath, contents: ContentsWriter) -> None:
        self.path = path
        self._base_name = path.base_name.encode()
        self._root = _STORE + self._base_name
        self._contents = contents
        self.nar = NarHasher()

    def of(self, node: Node) -> bytes:
        """Return the header of *node*, and list it in the table of contents."""
        kind, name, depth = node.kind, node.name, node.depth
        full, listed = self._root + node.below, name if depth else self._base_name
        if kind == DIRECTORY:
            header = tar.header(full + b"/", tar.DIRECTORY, 0o555)
            self._contents.add(FOLDER, depth, listed, 0, len(header))
            self.nar.directory(depth, name)
        elif kind == FILE:
            file, mode = (EXECUTABLE, 0o555) if node.executable else (PLAIN, 0o444)
            header = tar.header(full, tar.FILE, mode, node.size)
            self._contents.add(file, depth, listed, node.size, len(header))
            self.nar.file(depth, name, node.size, node.executable)
        else:
            header = tar.header(full, tar.SYMLINK, 0o777, target=node.target)
            self._contents.add_link(depth, listed, node.target, len(header))
            self.nar.symlink(depth, name, node.target)
        return header


class _PathWriter:
    def __init__(
        self, path: StorePath, store: StoreReader, out: FrameWriter, contents: ContentsWriter
    ) -> None:
        self._path = path
        self._store = store
        self._out = out
        self._headers = NodeHeaders(path, contents)
        self.nar = self._headers.nar

    def write(self) -> None:
        for node in self._store.walk(self._path):
            self._out.put(self._headers.of(node))
            if node.kind == FILE:
                self._write_file(node)

    def _write_file(self, node: Node) -> None:
        size = node.size
        if size:
            handle = self._store.open(self._path, node)
            try:
                self._copy(node, handle)
            finally:
                self._store.close(handle)
            self._out.put(tar.padding(size))
        self.nar.end_file(size)

    def _copy(self, node: Node, handle: int) -> None:
        left = node.size
        while left:
            view = self._out.room()[: min(left, _READ)]
            count = self._store.read(handle, view)
            if count == 0:
                name = node.below.decode(errors="replace") or "it"
                raise _changed(self._path, f"{name} became shorter while it was read")
            if count <= _SMALL:
                self.nar.add(bytes(view[:count]))
            else:
                self.nar.add_now(view[:count])
            self._out.advance(count)
            left -= count


def _changed(path: StorePath, how: str) -> CheckedFalse:
    return CheckedFalse(
        f"{path} is not what the store's database says: {how}",
        hint="the store changed, now or since the path was made: `nix-store --verify"
        " --check-contents --repair` restores it; then run this again",
    )


_PARENTS = (b"nix/", b"nix/store/")


@dataclass(frozen=True, slots=True)
class FinishedLayer(Declared):
    """What there is to know of a layer once it is written.

    ``tar_size`` is that of the uncompressed tar, in bytes. Each store path begins a frame.
    ``contents`` is its part of the image's table of contents; a layer of no store paths has none.
    """

    descriptor: Descriptor
    diff_id: DiffID
    tar_size: int
    frames: tuple[Frame, ...]
    contents: bytes = b""


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
    contents = ContentsWriter()
    with FrameWriter(compressor, sink, pool or Alone()) as out:
        for parent in _PARENTS:
            out.put(tar.header(parent, tar.DIRECTORY, 0o755))
        for info in ordered:
            out.cut()
            write_path(info, store, out, contents)
        out.cut()
        out.put(tar.END)
        return _finished(out.finish(), compressor, contents)


def write_entries_layer(
    entries: Iterable[tar.TarEntry], compressor: Compressor, sink: Sink
) -> FinishedLayer:
    """Write a layer of *entries*, sorted, with every parent directory; return what it is."""
    compressor.check_at_hand()
    with FrameWriter(compressor, sink, Alone()) as out:
        for part in tar.archived(entries):
            out.put(part)
        return _finished(out.finish(), compressor)


def _finished(
    framed: Framed, compressor: Compressor, contents: ContentsWriter | None = None
) -> FinishedLayer:
    pairs = zip(framed.frames, framed.hashes, strict=True)
    frames = [HashedFrame(frame.compressed, frame.size, digest) for frame, digest in pairs]
    return FinishedLayer(
        descriptor=Descriptor(compressor.media_type, framed.digest, framed.size),
        diff_id=framed.diff_id,
        tar_size=framed.tar_size,
        frames=framed.frames,
        contents=b"" if contents is None else contents.finish(frames),
    )


def _in_order(paths: Sequence[PathInfo]) -> list[PathInfo]:
    ordered = sorted(paths, key=lambda info: info.path)
    if not ordered:
        raise InputError("a layer needs at least one store path")
    for one, other in pairwise(ordered):
        if one.path == other.path:
            raise InputError(f"{one.path} is given twice for one layer")
    return ordered
