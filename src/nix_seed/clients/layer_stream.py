"""A layer's blob as the stream of its tar, hashed on both sides while it is read.

Bytes go disk → SHA-256 (the descriptor's digest) → decompressor → SHA-256 (the diffID) → reader, in
constant memory.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import multiprocessing
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import zstandard

from nix_seed.formats.oci import media_types
from nix_seed.formats.oci.descriptor import Descriptor
from nix_seed.ground.digests import DiffID, Digest
from nix_seed.ground.errors import CheckedFalse, CouldNotCheck, InputError

__all__ = ["Allowance", "open_layer"]

_CHUNK = 1 << 20
_WINDOW = 1 << 27  # 128 MiB, what `zstd --long` may ask for; more is refused by the decompressor


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
