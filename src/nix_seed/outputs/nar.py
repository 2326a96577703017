"""NARs on their way: packed from a store into a repository, and checked on the way to Nix.

The blob is the NAR in zstd frames; where it has more than one, with a seek table. Nix reads it as
plain zstd. Equal NARs are equal blobs, as long as libzstd is the same.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from typing import IO, Final, cast

import zstandard

from nix_seed.core.digests import Digest, NarHash
from nix_seed.core.errors import CheckedFalse, foreign
from nix_seed.core.files import explained
from nix_seed.core.values import dataclass
from nix_seed.flake.nix import Nix
from nix_seed.formats.nix.nar import dump_tree
from nix_seed.formats.nix.store_path import PathInfo
from nix_seed.formats.zstd import ChunkFile
from nix_seed.image.rules.frames import FRAME_SIZE, Alone, Compressor, FrameWriter
from nix_seed.outputs.rules.kept import LARGEST_INLINE, NAR_TYPE, Stored
from nix_seed.registry.store import ImageStore

_WINDOW: Final = 8 << 20
_STEP: Final = 1 << 20
_SMALL: Final = 8 << 20
_MOST_HELD: Final = 64 << 20
_DAMAGED: Final = "the store is damaged, or it changed meanwhile: nix-store --verify-path"


@dataclass(frozen=True, slots=True)
class Packed:
    """The *blob* of a NAR, and the bytes *sent* for it; *text* is a small one's content."""

    blob: Stored
    sent: int
    text: bytes = b""


def pack(store: ImageStore, info: PathInfo, nix: Nix, *, expected: bool) -> Packed:
    """Send the NAR of *info*, which *nix* has, to *store*.

    Where it is *expected* to be there, it is packed first, to see whether it is. ``CheckedFalse``
    where the NAR is not the one that the store's database states.
    """

    def source() -> Iterator[bytes]:
        top = nix.at(info.path)
        with explained(f"archiving {info.path}"):
            yield from _packed(info, dump_tree(top))

    if info.nar_size > _SMALL:
        if expected:
            state, size = hashlib.sha256(), 0
            for chunk in source():
                state.update(chunk)
                size += len(chunk)
            blob = Stored(Digest(state.hexdigest()), size)
            if store.has_blob(blob.digest):
                return Packed(blob, 0)
        sent = store.push_stream(source, NAR_TYPE)
        return Packed(Stored(sent.digest, sent.size), sent.size)
    chunks = b"".join(source())
    blob = Stored(Digest.of(chunks), len(chunks))
    text = chunks if len(chunks) <= LARGEST_INLINE else b""
    if expected and store.has_blob(blob.digest):
        return Packed(blob, 0, text)
    store.take_blob(blob.descriptor(NAR_TYPE), lambda held: iter((chunks[held.size :],)))
    return Packed(blob, blob.size, text)


class _Sink:
    """Takes what was compressed, until it is fetched."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []

    def write(self, data: bytes, /) -> None:
        self._chunks.append(data)

    def taken(self) -> list[bytes]:
        chunks, self._chunks = self._chunks, []
        return chunks


def _packed(info: PathInfo, nar: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Yield the blob of *nar*, its last bytes only if it is the NAR of *info*."""
    compressor = Compressor.at_hand()
    if info.nar_size <= FRAME_SIZE:
        # One frame: a table of frames would say nothing, and be much of a small blob.
        data = bytearray()
        for piece in nar:
            data += piece
            if len(data) > info.nar_size:
                break
        _check_packed(info, NarHash(hashlib.sha256(data).hexdigest()), len(data))
        yield compressor.compress(data)
        return
    sink = _Sink()
    with FrameWriter(compressor, sink, Alone()) as writer:
        for piece in nar:
            writer.put(piece)
            yield from sink.taken()
        done = writer.finish()
    _check_packed(info, NarHash(done.diff_id.hex), done.tar_size)
    yield from sink.taken()


def _check_packed(info: PathInfo, found: NarHash, size: int) -> None:
    if (found, size) != (info.nar_hash, info.nar_size):
        raise CheckedFalse(
            f"{info.path} has NAR hash {found}, and Nix's database says {info.nar_hash}",
            hint=_DAMAGED,
        )


def checked(chunks: Iterable[bytes], info: PathInfo, what: str) -> Iterator[bytes]:
    """Yield *chunks*, the blob of *info*'s NAR; the last of them only if all of it is right.

    ``CheckedFalse`` for another NAR, or one that is longer than stated. Memory is bounded whatever
    the blob claims.
    """
    tee = _Tee(chunks, what)
    for _ in _unpacked(tee, info, what):
        yield from tee.taken(all_of_it=False)
    yield from tee.taken(all_of_it=True)


def unpack_nar(chunks: Iterable[bytes], info: PathInfo, what: str) -> Iterator[bytes]:
    """Yield the NAR of *info* that the blob *chunks* holds, in pieces.

    It ends without an error only where it was that NAR; else ``CheckedFalse``.
    """
    return _unpacked(ChunkFile(chunks), info, what)


def _unpacked(file: ChunkFile, info: PathInfo, what: str) -> Iterator[bytes]:
    state, size = hashlib.sha256(), 0
    reader = zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(
        cast("IO[bytes]", file), read_across_frames=True
    )
    broken = f"{what} is not intact zstd"
    while True:
        with foreign(broken, zstandard.ZstdError, as_=CheckedFalse, quoted=False):
            piece = reader.read(_STEP)
        if not piece:
            break
        size += len(piece)
        if size > info.nar_size:
            raise CheckedFalse(f"{what} unpacks to more than the {info.nar_size} bytes stated")
        state.update(piece)
        yield piece
    found = NarHash(state.hexdigest())
    if (found, size) != (info.nar_hash, info.nar_size):
        raise CheckedFalse(f"{what} is another NAR: {found}, {size} bytes; not {info.nar_hash}")


def last_held_back(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield *chunks*, the last of them only once they ended without an error."""
    before = b""
    for chunk in chunks:
        if before:
            yield before
        before = chunk
    if before:
        yield before


class _Tee(ChunkFile):
    """The same, and it keeps what was read until that is taken."""

    def __init__(self, chunks: Iterable[bytes], what: str) -> None:
        super().__init__(chunks)
        self._what = what
        self._passed: deque[bytes] = deque()
        self._size = 0

    def read(self, size: int = -1) -> bytes:
        """Return the next chunk, whatever *size* is asked."""
        chunk = super().read(size)
        if chunk:
            self._passed.append(chunk)
            self._size += len(chunk)
        if self._size > _MOST_HELD:
            raise CheckedFalse(f"{self._what} unpacks to next to nothing: {self._size} bytes of it")
        return chunk

    def taken(self, *, all_of_it: bool) -> Iterator[bytes]:
        """Yield what was read since the last time; the very last chunk only with *all_of_it*."""
        while len(self._passed) > (0 if all_of_it else 1):
            chunk = self._passed.popleft()
            self._size -= len(chunk)
            yield chunk
