"""A layer on its way: fetched by one thread, its frames decoded by others or by who reads them.

Memory is bounded.
``TarPieces`` is the stream that ``read_entries`` reads. Whole layers are hashed as they arrive;
their digest is proved when the stream ends, and not before.

A layer's blob as the stream of its tar, hashed on both sides while it is read.

Bytes go disk → SHA-256 (the descriptor's digest) → decompressor → SHA-256 (the diffID) → reader, in
constant memory.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import multiprocessing
import queue
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self, cast

import zstandard

from nix_seed.core.digests import DiffID, Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.formats.oci import media_types
from nix_seed.formats.oci.manifest import Descriptor
from nix_seed.formats.zstd import FrameCutter
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


class TarPieces:
    """A context manager and binary stream; leaving it early stops its threads.

    *chunks* is the compressed blob, or any of its frames; *limit* bounds the tar in bytes. With no
    *threads* frames are decoded when they are read: best where other work keeps every core busy,
    since handing pieces between threads has its price. Errors of any thread are raised where the
    stream is read.
    """

    def __init__(
        self, chunks: Iterator[bytes], media_type: str, limit: int, what: str, threads: int
    ) -> None:
        self.spent = Spent()
        self._chunks = chunks
        self._media_type = media_type
        self._limit = limit
        self._what = what
        self._waiting: queue.Queue[_Piece | None] = queue.Queue(threads + _AHEAD)
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(threads, "decode") if threads else None
        self._fetcher = threading.Thread(target=self._fetch, name="fetch", daemon=True)
        self._piece = b""
        self._at = self._before = 0
        self._ended = False
        self._waited = 0.0
        self._begun = time.perf_counter()

    def __enter__(self) -> Self:
        self._fetcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        while self._fetcher.is_alive():
            try:
                self._waiting.get(timeout=0.05)
            except queue.Empty:
                continue
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

    def drain(self) -> None:
        """Read to the end of the blob, where its digest is checked."""
        while not self._ended:
            self._advance()

    def _advance(self) -> bool:
        while not self._ended:
            self._before += len(self._piece)
            self._piece, self._at = b"", 0
            start = time.perf_counter()
            piece = self._waiting.get()
            if piece is None:
                self._ended = True
                self.spent.unpack = time.perf_counter() - self._begun - self._waited
                return False
            self._piece = piece()
            self._waited += time.perf_counter() - start
            if self._before + len(self._piece) > self._limit:
                raise CheckedFalse(
                    f"{self._what} decompresses to more than {self._limit} bytes,"
                    " more than its store paths can need",
                    hint="the image was altered; nothing unverified was kept",
                )
            if self._piece:
                return True
        return False

    def _fetch(self) -> None:
        try:
            for piece in self._decoding(self._timed()):
                self._put(piece)
                if self._stopped.is_set():
                    return
        except BaseException as error:
            self._put(partial(_raise, error))
        finally:
            self._put(None)

    def _put(self, piece: _Piece | None) -> None:
        while not self._stopped.is_set():
            try:
                return self._waiting.put(piece, timeout=0.2)
            except queue.Full:
                continue
        return None

    def _timed(self) -> Iterator[bytes]:
        spent, start = self.spent, time.perf_counter()
        for chunk in self._chunks:
            spent.fetch += time.perf_counter() - start
            spent.fetched += len(chunk)
            yield chunk
            start = time.perf_counter()

    def _decoding(self, chunks: Iterator[bytes]) -> Iterator[_Piece]:
        if self._media_type == media_types.LAYER_ZSTD:
            yield from self._frames(chunks)
            return
        if self._media_type == media_types.LAYER_GZIP:
            pieces = _inflated(chunks, self._what)
        elif self._media_type == media_types.LAYER:
            pieces = chunks
        else:
            raise InputError(
                f"{self._what} has the media type {self._media_type!r}, which is not a layer",
                hint="layers are tar, tar+gzip or tar+zstd (OCI image specification 1.1)",
            )
        yield from self._ready(pieces)

    def _frames(self, chunks: Iterator[bytes]) -> Iterator[_Piece]:
        """Cut independent frames and have them decoded; decode others' endless ones as they come.

        The first bytes of a frame say how large it is; where they do not, it is no frame of ours.
        """
        cutter = FrameCutter(_LARGEST_FRAME, self._what)
        head = b""
        for chunk in chunks:
            head += chunk
            if len(head) >= 18:
                break
        if not 0 <= _content_size(head) <= _LARGEST_FRAME:
            yield from self._ready(_unframed(head, chunks, self._what))
            return
        for chunk in _after(head, chunks):
            for frame in cutter.feed(chunk):
                decode = partial(self._decode, frame)
                yield decode if self._pool is None else self._pool.submit(decode).result
        cutter.finish()

    def _ready(self, pieces: Iterator[bytes]) -> Iterator[_Piece]:
        start, blocked = time.perf_counter(), self.spent.fetch
        for piece in pieces:
            fetched = self.spent.fetch
            self.spent.decode += time.perf_counter() - start - (fetched - blocked)
            yield partial(bytes, piece)
            start, blocked = time.perf_counter(), fetched

    def _decode(self, frame: bytes) -> bytes:
        start = time.perf_counter()
        if not 0 <= _content_size(frame) <= _LARGEST_FRAME:
            raise CheckedFalse(f"{self._what} has a frame of unknown or excessive size")
        try:
            data = _decompressor().decompress(frame)
        except zstandard.ZstdError as error:
            raise CheckedFalse(f"{self._what} is not intact zstd: {error}") from error
        self.spent.decode += time.perf_counter() - start
        return data


def _raise(error: BaseException) -> bytes:
    raise error


def _decompressor() -> zstandard.ZstdDecompressor:
    """Return this thread's own: making one costs as much as decoding a small frame."""
    if not hasattr(_of_thread, "decompressor"):
        _of_thread.decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    decompressor: zstandard.ZstdDecompressor = _of_thread.decompressor
    return decompressor


def _content_size(frame: bytes) -> int:
    try:
        return int(zstandard.frame_content_size(frame))
    except zstandard.ZstdError:
        return -1


def _after(head: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from chunks


def _unframed(head: bytes, chunks: Iterator[bytes], what: str) -> Iterator[bytes]:
    """Decode zstd in pieces; no piece is larger than ``_PIECE``, whatever the stream claims."""
    source = _Readable(_after(head, chunks))
    decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    try:
        with decompressor.stream_reader(cast(IO[bytes], source), read_across_frames=True) as reader:
            while piece := reader.read(_PIECE):
                yield piece
    except zstandard.ZstdError as error:
        raise CheckedFalse(f"{what} is not intact zstd: {error}") from error
    source.drain()


class _Readable:
    """Chunks as the file that ``stream_reader`` wants."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def read(self, size: int) -> bytes:
        data = self._rest or next(self._chunks, b"")
        self._rest = data[size:]
        return data[:size]

    def drain(self) -> None:
        for _ in self._chunks:
            pass


def _inflated(chunks: Iterator[bytes], what: str) -> Iterator[bytes]:
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
        raise CheckedFalse(f"{what} is not intact gzip: {error}") from error
    if not inflate.eof:
        raise CheckedFalse(f"{what} is not intact gzip: it ends early")


_CHUNK = 1 << 20


class Allowance:
    """How many bytes an image may still decompress to, shared by the processes that unpack it."""

    def __init__(self, total: int) -> None:
        self._left = multiprocessing.get_context("fork").Value("q", min(total, (1 << 63) - 1))

    def spend(self, size: int, what: str) -> None:
        """Take *size* bytes, or raise ``CheckedFalse`` naming *what* went beyond."""
        with self._left.get_lock():
            self._left.value -= size
            if self._left.value < 0:
                raise CheckedFalse(
                    f"{what} decompresses to more than the limit or the free disk space",
                    hint="Free some space, or raise the limit if the image really is that large.",
                )


class _Hashing(io.RawIOBase):
    """Hashes, counts and bounds what passes through it."""

    def __init__(self, inner: IO[bytes], allowance: Allowance | None, what: str) -> None:
        self._inner = inner
        self._hash = hashlib.sha256()
        self._allowance = allowance
        self._what = what
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = cast(Any, self._inner).readinto(buffer)
        self._hash.update(memoryview(buffer)[:size])
        self.count += size
        if self._allowance is not None:
            self._allowance.spend(size, self._what)
        return int(size)

    def tell(self) -> int:
        return self.count

    @property
    def hex(self) -> str:
        return self._hash.hexdigest()


@contextlib.contextmanager
def open_layer(
    path: Path, descriptor: Descriptor, diff_id: DiffID, allowance: Allowance, what: str
) -> Iterator[io.BufferedReader]:
    """Yield the tar of the blob at *path*; on leaving, read it to its end and check both digests.

    Raises ``CheckedFalse`` where size, digest or diffID differ or the compression is broken, and
    ``CouldNotCheck`` where the blob is not there. Whatever the caller made of the stream must be
    thrown away when this raises.
    """
    try:
        blob = path.open("rb", buffering=0)
    except OSError as error:
        raise CouldNotCheck(
            f"{what}: cannot read its blob {path}: {error.strerror}",
            hint="The image layout is incomplete; copy or build the image again.",
        ) from error
    with blob:
        outer = _Hashing(cast(IO[bytes], blob), None, what)
        inner = _Hashing(_decompressed(outer, descriptor.media_type, what), allowance, what)
        stream = _buffered(inner)
        with _mapped(what):
            yield stream
            _drain(stream)
            _drain(_buffered(outer))
        _compare(f"{what}: blob size", str(descriptor.size), str(outer.count))
        _compare(f"{what}: digest", str(descriptor.digest), str(Digest(outer.hex)))
        _compare(f"{what}: diffID", str(diff_id), str(DiffID(inner.hex)))


def _decompressed(raw: _Hashing, media_type: str, what: str) -> IO[bytes]:
    # Only the decompressor reads `raw`, so that what is hashed is what is decompressed.
    if media_type == media_types.LAYER_ZSTD:
        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
        reader = decompressor.stream_reader(
            cast(IO[bytes], raw), read_size=_CHUNK >> 2, read_across_frames=True
        )
        return cast(IO[bytes], reader)
    if media_type == media_types.LAYER_GZIP:
        return cast(IO[bytes], gzip.GzipFile(fileobj=io.BufferedReader(raw, _CHUNK >> 2)))
    if media_type == media_types.LAYER:
        return cast(IO[bytes], raw)
    raise InputError(
        f"{what} has the media type {media_type!r}, which is not a layer this can read",
        hint="Layers are tar, tar+gzip or tar+zstd (OCI image specification 1.1).",
    )


def _buffered(raw: _Hashing) -> io.BufferedReader:
    return cast(io.BufferedReader, io.BufferedReader(raw, _CHUNK))


def _drain(stream: io.BufferedReader) -> None:
    while stream.read(_CHUNK):
        pass


@contextlib.contextmanager
def _mapped(what: str) -> Iterator[None]:
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CheckedFalse(f"{what} is not intact gzip: {error}") from error
    except zstandard.ZstdError as error:
        raise CheckedFalse(f"{what} is not intact zstd: {error}") from error


def _compare(what: str, wanted: str, got: str) -> None:
    if wanted != got:
        raise CheckedFalse(
            f"{what} is {got}, not {wanted} as the manifest says",
            hint="The image is damaged or was altered: nothing of it was kept. Get it again.",
        )


class BlobReader(Protocol):
    """The half of an ``ImageStore`` that reads blobs."""

    def open_blob(self, blob: Descriptor, held: Held | None = None) -> Iterator[bytes]:
        """Yield the blob; right if, and only if, the iterator ends."""
        ...

    def read_range_unverified(self, blob: Descriptor, start: int, length: int) -> bytes:
        """Return part of a blob."""
        ...
