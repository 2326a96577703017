"""A layer on its way: fetched and decoded by threads of its own, or by who reads it.

``TarPieces`` is the stream that ``read_entries`` reads, for every reader of layers. Memory is
bounded. Whole layers are hashed as they arrive: their digest is proved when the stream ends, and
not before.
"""

import hashlib
import threading
import time
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Any, Protocol, Self, cast

import zstandard

from nix_seed.core.digests import DiffID
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.core.parallel import handed_over
from nix_seed.core.values import dataclass
from nix_seed.core.words import human_size
from nix_seed.formats.nix.store_path import PathInfo
from nix_seed.formats.oci.manifest import Descriptor, MediaType
from nix_seed.formats.zstd import ChunkFile, FrameCutter
from nix_seed.image.rules.contents import HashedFrame
from nix_seed.registry.store import Held

_LARGEST_FRAME = 64 << 20
_PIECE = 4 << 20
_WINDOW = 1 << 27
_of_thread = threading.local()
_AHEAD = 4  # frames, beyond those being decoded

_Piece = Callable[[], bytes]


@dataclass(slots=True)
class Spent:
    """Bytes fetched; seconds spent fetching, decoding and, by the reader, on what it read."""

    fetched: int = 0
    fetch: float = 0.0
    decode: float = 0.0
    unpack: float = 0.0


class Allowance:
    """How many bytes an image may still decompress to, shared by the processes that unpack it.

    *total* is the limit for any image, *free* what the disk at *place* has room for.
    """

    def __init__(self, total: int, free: int, place: Path) -> None:
        import multiprocessing  # which those who unpack no image need not wait for

        self._limit, self._free, self._place = total, free, place
        most = min(total, free, (1 << 63) - 1)
        self._left = multiprocessing.get_context("fork").Value("q", most)

    def spend(self, size: int, label: str) -> None:
        """Take *size* bytes, or raise an error that names *label* as what went beyond."""
        with self._left.get_lock():
            self._left.value -= size
            if self._left.value >= 0:
                return
        if self._free < self._limit:
            # Nothing is wrong with the image.
            raise CouldNotCheck(
                f"{label} needs more space than the {human_size(self._free)} free at {self._place}",
                hint="free some, or point NIX_SEED_CACHE at a larger disk",
            )
        raise CheckedFalse(
            f"{label} decompresses to more than the limit of {human_size(self._limit)}",
            hint="raise the limit if the image really is that large",
        )


def layer_limit(paths: Iterable[PathInfo]) -> int:
    """Return bytes that a tar of *paths* cannot exceed: headers are short, and few."""
    # An entry of a NAR takes at least 100 bytes, so a NAR has at most a hundredth as many.
    return (1 << 20) + sum(24 * info.nar_size + 8192 for info in paths)


class TarPieces:
    """A context manager and binary stream; leaving it early stops its threads.

    *chunks* is the compressed blob, or any of its frames; *limit* bounds the tar in bytes. With no
    *threads* who reads also fetches and decodes: best where other work keeps every core busy, since
    handing pieces between threads has its price. The kernel receives meanwhile. Errors of any
    thread are raised where the stream is read. ``diff_id`` hashes the tar on the way, if *hashed*
    asks for that.
    """

    def __init__(
        self,
        chunks: Iterator[bytes],
        media_type: str,
        limit: int | Allowance,
        label: str,
        threads: int,
        *,
        hashed: bool = False,
    ) -> None:
        self.spent = Spent()
        self._chunks = chunks
        self._media_type = media_type
        self._limit = limit
        self._label = label
        self._pool = ThreadPoolExecutor(threads, "decode") if threads else None
        self._pieces = self._decoding(self._timed())
        if threads:
            self._pieces = handed_over(partial(_give_all, self._pieces), threads + _AHEAD)
        self._piece = b""
        self._at = self._before = 0
        self._ended = False
        self._tar = hashlib.sha256() if hashed else None
        self._waited = 0.0
        self._begun = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._pieces.close()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def tell(self) -> int:
        """The position in the tar."""
        return self._before + self._at

    def read(self, size: int) -> bytes:
        """Return *size* bytes, fewer only at the end."""
        end = self._at + size
        if end <= len(self._piece):
            data = self._piece[self._at : end]
            self._at = end
            return data
        parts = []
        while size and (view := self.take(size)):
            parts.append(bytes(view))
            size -= len(view)
        return b"".join(parts)

    def take(self, size: int) -> memoryview:
        """Return what is at hand, up to *size* bytes without copying; empty only at the end."""
        if self._at == len(self._piece) and not self._advance():
            return memoryview(b"")
        view = memoryview(self._piece)[self._at : self._at + size]
        self._at += len(view)
        return view

    def body(self, size: int) -> Iterator[memoryview]:
        """Yield the next *size* bytes, a file's content, in pieces that are not copied."""
        while size:
            view = self.take(size)
            if not view:
                raise CheckedFalse(f"{self._label}: ends in the middle of a file")
            yield view
            size -= len(view)

    def drain(self) -> None:
        """Read to the end of the blob, where its digest is checked."""
        while not self._ended:
            self._advance()

    def diff_id(self) -> DiffID:
        """Return the digest of all of the tar, once it is drained."""
        assert self._tar is not None
        self.drain()
        return DiffID(self._tar.hexdigest())

    def _advance(self) -> bool:
        while not self._ended:
            self._before += len(self._piece)
            self._piece, self._at = b"", 0
            start = time.perf_counter()
            piece = next(self._pieces, None)
            if piece is None:
                self._ended = True
                self.spent.unpack = time.perf_counter() - self._begun - self._waited
                return False
            self._piece = piece()
            self._waited += time.perf_counter() - start
            if self._tar is not None:
                self._tar.update(self._piece)
            if isinstance(self._limit, Allowance):
                self._limit.spend(len(self._piece), self._label)
            elif self._before + len(self._piece) > self._limit:
                raise CheckedFalse(
                    f"{self._label} decompresses to more than {self._limit} bytes,"
                    " more than its store paths can need",
                    hint="the image was altered; nothing unverified was kept",
                )
            if self._piece:
                return True
        return False

    def _timed(self) -> Iterator[bytes]:
        spent, start = self.spent, time.perf_counter()
        for chunk in self._chunks:
            spent.fetch += time.perf_counter() - start
            spent.fetched += len(chunk)
            yield chunk
            start = time.perf_counter()

    def _decoding(self, chunks: Iterator[bytes]) -> Generator[_Piece, None, None]:
        if self._media_type == MediaType.LAYER_ZSTD:
            yield from self._frames(chunks)
            return
        if self._media_type == MediaType.LAYER_GZIP:
            pieces = _inflated(chunks, self._label)
        elif self._media_type == MediaType.LAYER:
            pieces = chunks
        else:
            raise InputError(
                f"{self._label} has the media type {self._media_type!r}, which is not a layer",
                hint="layers are tar, tar+gzip or tar+zstd (OCI image specification 1.1)",
            )
        yield from self._ready(pieces)

    def _frames(self, chunks: Iterator[bytes]) -> Iterator[_Piece]:
        """Cut independent frames and have them decoded; decode others' endless ones as they come.

        The first bytes of a frame say how large it is; where they do not, it is no frame of ours.
        """
        cutter = FrameCutter(_LARGEST_FRAME, self._label)
        head = b""
        for chunk in chunks:
            head += chunk
            if len(head) >= 18:
                break
        if not 0 <= _content_size(head) <= _LARGEST_FRAME:
            yield from self._ready(_unframed(head, chunks, self._label))
            return
        for chunk in chain((head,), chunks):
            for frame in cutter.feed(chunk):
                self._saw(frame)
                decode = partial(self._decode, frame)
                yield decode if self._pool is None else self._pool.submit(decode).result
        cutter.finish()

    def _saw(self, frame: memoryview) -> None:
        """Take note of a frame that is about to be decoded."""

    def _ready(self, pieces: Iterator[bytes]) -> Iterator[_Piece]:
        start, blocked = time.perf_counter(), self.spent.fetch
        for piece in pieces:
            fetched = self.spent.fetch
            self.spent.decode += time.perf_counter() - start - (fetched - blocked)
            yield partial(bytes, piece)
            start, blocked = time.perf_counter(), fetched

    def _decode(self, frame: memoryview) -> bytes:
        start = time.perf_counter()
        if not 0 <= _content_size(frame) <= _LARGEST_FRAME:
            raise CheckedFalse(f"{self._label} has a frame of unknown or excessive size")
        try:
            # This thread's own: making one costs as much as decoding a small frame.
            if not hasattr(_of_thread, "decompressor"):
                _of_thread.decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
            decompressor: zstandard.ZstdDecompressor = _of_thread.decompressor
            data = decompressor.decompress(frame)
        except zstandard.ZstdError as error:
            raise CheckedFalse(f"{self._label} is not intact zstd: {error}") from error
        self.spent.decode += time.perf_counter() - start
        return data


class HashedPieces(TarPieces):
    """``TarPieces`` that also hash each frame of the blob; ``frames`` tells them at the end."""

    def __init__(self, *how: Any, **more: Any) -> None:
        super().__init__(*how, **more, hashed=True)
        self._seen: list[HashedFrame] = []

    def frames(self) -> tuple[HashedFrame, ...]:
        """Return the frames, once the blob is drained; none where it was not cut into frames."""
        self.drain()
        return tuple(self._seen)

    def _saw(self, frame: memoryview) -> None:
        self._seen.append(HashedFrame.of(frame, _content_size(frame)))


def _give_all(pieces: Generator[_Piece, None, None], give: Callable[[_Piece], None]) -> None:
    with closing(pieces):
        for piece in pieces:
            give(piece)


def _content_size(frame: bytes | memoryview) -> int:
    try:
        return int(zstandard.frame_content_size(frame))
    except zstandard.ZstdError:
        return -1


def _unframed(head: bytes, chunks: Iterator[bytes], label: str) -> Iterator[bytes]:
    """Decode zstd in pieces; no piece is larger than ``_PIECE``, whatever the stream claims."""
    source = chain((head,), chunks)
    decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    try:
        file = cast(IO[bytes], ChunkFile(source))
        with decompressor.stream_reader(file, read_across_frames=True) as reader:
            while piece := reader.read(_PIECE):
                yield piece
    except zstandard.ZstdError as error:
        raise CheckedFalse(f"{label} is not intact zstd: {error}") from error
    for _ in source:
        pass


def _inflated(chunks: Iterator[bytes], label: str) -> Iterator[bytes]:
    inflate = zlib.decompressobj(wbits=31)
    try:
        for chunk in chunks:
            data = chunk
            while data:
                if inflate.eof:
                    inflate = zlib.decompressobj(wbits=31)
                if piece := inflate.decompress(data, _PIECE):
                    yield piece
                data = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
        while not inflate.eof and (piece := inflate.decompress(b"", _PIECE)):
            yield piece
    except zlib.error as error:
        raise CheckedFalse(f"{label} is not intact gzip: {error}") from error
    if not inflate.eof:
        raise CheckedFalse(f"{label} is not intact gzip: it ends early")


class BlobReader(Protocol):
    """The half of an ``ImageStore`` that reads blobs."""

    def open_blob(self, blob: Descriptor, held: Held | None = None) -> Iterator[bytes]:
        """Yield the blob; right if, and only if, the iterator ends."""
        ...

    def read_range_unverified(self, blob: Descriptor, start: int, length: int) -> bytes:
        """Return part of a blob."""
        ...
