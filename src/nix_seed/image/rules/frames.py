"""Compression as a value: the library's exact version and the level belong to the digest.

Every frame is compressed in one call by a context of its own, so its bytes are a function of its
contents alone: not of threads, of how the input arrived, or of what was compressed before. (A zstd
context that is used again salts its hash tables anew, and from level 5 on that may change output.)

Frames carry their content size, which lets a reader allocate at once. They carry no checksum: a
blob is read by its digest and a store path by its NAR hash, both stronger.

Tar bytes in; independent compressed frames, diffID and digest out, in one pass.

The tar is written into buffers of ``FRAME_SIZE`` bytes. A full buffer, or one cut at a boundary,
becomes one frame. A pool compresses frames, as many at once as it likes; they reach the sink in
order. Memory is the pool's buffers and what they compress to.

Which bytes of a layer's blob hold which store paths, from its seek table alone.

Every path begins a frame, and of a path's frames all but the last hold exactly ``FRAME_SIZE``
bytes, so a shorter frame ends a path. (One path in some 8,000 ends with a full frame; then the
counts of groups and of paths differ, and the layer has to be read whole.) Nothing here is proof:
what is read by it is checked by the NAR hash of each path.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import Final, Literal, Protocol, Self

from nix_seed.core.declared import Declared
from nix_seed.core.digests import DiffID, Digest
from nix_seed.core.errors import InputError
from nix_seed.core.values import dataclass
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.formats.oci.manifest import MediaType
from nix_seed.formats.zstd import Frame, SeekTable

Name = Literal["zstd", "gzip"]
_LEVELS: Mapping[str, range] = {"zstd": range(1, 20), "gzip": range(1, 13)}
_DEFAULT_LEVELS: Mapping[Name, int] = {"zstd": 3, "gzip": 6}
_MEDIA_TYPES: Mapping[str, str] = {
    "zstd": MediaType.LAYER_ZSTD,
    "gzip": MediaType.LAYER_GZIP,
}


@dataclass(frozen=True, slots=True)
class Compressor(Declared):
    """``zstd`` by libzstd *version*, or ``gzip`` by the ``deflate`` package's *version*."""

    name: str
    version: str
    level: int

    def __post_init__(self) -> None:
        if self.name not in _LEVELS:
            raise InputError(f"compressor {self.name!r} is unknown; there are zstd and gzip")
        levels = _LEVELS[self.name]
        if self.level not in levels:
            raise InputError(
                f"{self.name} level {self.level} is not from {levels[0]} to {levels[-1]}"
            )

    @classmethod
    def at_hand(cls, name: Name = "zstd", level: int | None = None) -> Self:
        """The compressor this machine has, at *level* (zstd 3, gzip 6)."""
        return cls(name, _version(name), _DEFAULT_LEVELS[name] if level is None else level)

    @property
    def media_type(self) -> str:
        """The media type of a layer so compressed."""
        return _MEDIA_TYPES[self.name]

    def check_at_hand(self) -> None:
        """Raise ``InputError`` if this machine would give other bytes than the spec wants."""
        here = _version(self.name)
        if here != self.version:
            raise InputError(
                f"the spec wants {self.name} {self.version}, but {here} is installed here,"
                " and another version gives other digests",
                hint="install the nix-seed release that made the spec, or make the spec anew",
            )

    def compress(self, data: bytes | bytearray | memoryview) -> bytes:
        """Return *data* as one frame (zstd) or one member (gzip). Releases the interpreter lock."""
        if self.name == "gzip":
            import deflate

            return bytes(deflate.gzip_compress(data, self.level))
        import zstandard

        return zstandard.ZstdCompressor(level=self.level).compress(data)

    def trailer(self, frames: tuple[Frame, ...]) -> bytes:
        """What follows the last frame: zstd's seek table; gzip has no such thing."""
        return SeekTable(frames).dump() if self.name == "zstd" else b""


def _version(name: str) -> str:
    if name == "gzip":
        import deflate

        return str(deflate.__version__)
    import zstandard

    return ".".join(str(part) for part in zstandard.ZSTD_VERSION)


# Part of the format. 4 MiB rather than 16: 0.4 % larger, but four times as many frames fit the same
# memory, so that one large layer still keeps every core busy, here and where it is read.
FRAME_SIZE: Final = 4 << 20

# Hashed in steps that are still in the processor's cache from when they were read.
_STEP: Final = 512 << 10


class Sink(Protocol):
    """Takes a blob's bytes in order: a file, a request body."""

    def write(self, data: bytes, /) -> object:
        """Take all of *data*."""
        ...


class FramePool(Protocol):
    """Lends buffers of ``FRAME_SIZE`` bytes and compresses what was put into them."""

    ahead: int
    """How many frames one layer may have under way."""

    def take(self) -> bytearray:
        """Lend a buffer, waiting until one is free."""
        ...

    def give(self, buffer: bytearray) -> None:
        """Take a buffer back unused."""
        ...

    def submit(
        self, compress: Callable[[memoryview], bytes], buffer: bytearray, size: int
    ) -> Future[bytes]:
        """Compress the first *size* bytes, then take the buffer back."""
        ...


class Alone:
    """A pool of one: the caller's own thread, one buffer."""

    ahead = 0

    def __init__(self) -> None:
        self._buffer: bytearray | None = bytearray(FRAME_SIZE)

    def take(self) -> bytearray:
        """Lend the buffer."""
        buffer, self._buffer = self._buffer, None
        return bytearray(FRAME_SIZE) if buffer is None else buffer

    def give(self, buffer: bytearray) -> None:
        """Take it back."""
        self._buffer = buffer

    def submit(
        self, compress: Callable[[memoryview], bytes], buffer: bytearray, size: int
    ) -> Future[bytes]:
        """Compress here and now."""
        done = Future[bytes]()
        done.set_result(compress(memoryview(buffer)[:size]))
        self._buffer = buffer
        return done


@dataclass(frozen=True, slots=True)
class Framed:
    """A finished blob: digest and size in bytes; diffID and size of its tar; its frames.

    ``hashes`` are the SHA-256 of the compressed frames.
    """

    digest: Digest
    size: int
    diff_id: DiffID
    tar_size: int
    frames: tuple[Frame, ...]
    hashes: tuple[bytes, ...]


class FrameWriter:
    """Use as a context manager: leaving it early gives the pool its buffers back."""

    def __init__(self, compressor: Compressor, sink: Sink, pool: FramePool) -> None:
        self._compressor = compressor
        self._sink = sink
        self._pool = pool
        self._tar, self._blob = hashlib.sha256(), hashlib.sha256()
        self._tar_size = self._blob_size = 0
        self._frames: list[Frame] = []
        self._hashes: list[bytes] = []
        self._under_way: deque[tuple[Future[bytes], int]] = deque()
        self._buffer: bytearray | None = None
        self._view = memoryview(b"")
        self._filled = self._hashed = self._capacity = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        buffer, self._buffer = self._buffer, None
        self._release()
        if buffer is not None:
            self._pool.give(buffer)

    def put(self, data: bytes | memoryview) -> None:
        """Append *data* to the tar."""
        size = len(data)
        end = self._filled + size
        if end <= self._capacity:
            self._view[self._filled : end] = data
            self._filled = end
            return
        taken = 0
        while taken < size:
            room = self.room()
            part = min(len(room), size - taken)
            room[:part] = data[taken : taken + part]
            self.advance(part)
            taken += part

    def room(self) -> memoryview:
        """Return space, never empty, to put more of the tar in; then ``advance``."""
        if self._filled == self._capacity:
            self.cut()
            self._buffer = self._pool.take()
            self._view = memoryview(self._buffer)
            self._capacity = FRAME_SIZE
        return self._view[self._filled :]

    def advance(self, size: int) -> None:
        """Count the first *size* bytes of ``room`` as written."""
        self._filled += size
        if self._filled - self._hashed >= _STEP:
            self._hash()

    def cut(self) -> None:
        """End the frame here, if one has begun."""
        if self._filled == 0 or self._buffer is None:
            return
        self._hash()
        size, buffer = self._filled, self._buffer
        self._release()
        self._buffer = None
        self._under_way.append((self._pool.submit(self._compressor.compress, buffer, size), size))
        self._tar_size += size
        while self._under_way and (
            len(self._under_way) > self._pool.ahead or self._under_way[0][0].done()
        ):
            self._emit()

    def finish(self) -> Framed:
        """End the blob and say what it is."""
        self.cut()
        while self._under_way:
            self._emit()
        frames = tuple(self._frames)
        self._write(self._compressor.trailer(frames))
        return Framed(
            digest=Digest(self._blob.hexdigest()),
            size=self._blob_size,
            diff_id=DiffID(self._tar.hexdigest()),
            tar_size=self._tar_size,
            frames=frames,
            hashes=tuple(self._hashes),
        )

    def _hash(self) -> None:
        self._tar.update(self._view[self._hashed : self._filled])
        self._hashed = self._filled

    def _release(self) -> None:
        self._view = memoryview(b"")
        self._filled = self._hashed = self._capacity = 0

    def _emit(self) -> None:
        pending, size = self._under_way.popleft()
        data = pending.result()
        self._frames.append(Frame(len(data), size))
        self._hashes.append(hashlib.sha256(data).digest())
        self._write(data)

    def _write(self, data: bytes) -> None:
        self._blob.update(data)
        self._blob_size += len(data)
        self._sink.write(data)


Span = tuple[int, int]
"""Where bytes of a blob begin, and where they end."""

# Two requests cost more than these bytes between them.
_GAP = 128 << 10


def locate_paths(table: SeekTable, paths: Collection[StorePath]) -> dict[StorePath, Span] | None:
    """Return where the frames of each of *paths*, all of the layer's, lie; None if unclear."""
    offsets = table.offsets()
    ends = [
        number + 1
        for number, frame in enumerate(table.frames[1:-1], 1)  # parents first, the tar's end last
        if frame.size < FRAME_SIZE
    ]
    if len(ends) != len(paths) or ends[-1:] != [len(table.frames) - 1]:
        return None
    starts = [1, *ends[:-1]]
    return {
        path: (offsets[start], offsets[end])
        for path, start, end in zip(sorted(paths), starts, ends, strict=True)
    }


def spans_of(places: Sequence[Span]) -> list[Span]:
    """Join *places* that touch or nearly do; sorted."""
    joined: list[Span] = []
    for start, end in sorted(places):
        if joined and start - joined[-1][1] <= _GAP:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined
