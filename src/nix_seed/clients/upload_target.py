"""A ``LayerTarget`` that is a repository: store paths go to the registry in one pass.

No blob is written to disk. What the registry already has is neither read nor sent: layer records
remember digests by layer key, and one request tells whether the blob is there. A blob that an
earlier build left in the layer cache is sent from there.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Protocol

from nix_seed.clients.layer_cache import LayerCache
from nix_seed.clients.layer_records import LayerRecords
from nix_seed.formats.oci.descriptor import Descriptor
from nix_seed.ground.digests import Digest
from nix_seed.ground.errors import CheckedFalse
from nix_seed.rules.frames import Sink
from nix_seed.rules.layer import FinishedLayer

__all__ = ["Repository", "UploadTarget"]

Source = Callable[[], Iterator[bytes]]

# Chunks on their way from the compressor to the network: frames of a few MB at most.
_IN_FLIGHT: Final = 4
_CHUNK: Final = 1 << 20


class Repository(Protocol):
    """The part of a registry's repository that is used here."""

    def has_blob(self, digest: Digest) -> bool:
        """Whether the blob is there."""
        ...

    def push_blob(self, blob: Descriptor, source: Source) -> None:
        """Send a blob that is known."""
        ...

    def push_stream(self, source: Source, media_type: str) -> Descriptor:
        """Send a stream; return what it proved to be."""
        ...


class UploadTarget:
    """Layers go to *repository*; *records* remember them, *cache* may hold some."""

    def __init__(
        self, repository: Repository, records: LayerRecords, cache: LayerCache, media_type: str
    ) -> None:
        self._repository = repository
        self._records = records
        self._cache = cache
        self._media_type = media_type
        self._lock = threading.Lock()
        self.sent = 0

    def find(self, key: str) -> FinishedLayer | None:
        """Return the layer of *key* if the registry has it already."""
        layer = self._records.find(key)
        if layer is None or not self._repository.has_blob(layer.descriptor.digest):
            return None
        return layer

    def write(self, key: str, produce: Callable[[Sink], FinishedLayer]) -> FinishedLayer:
        """Send the layer that *produce* makes, or the cache has, and remember it."""
        layer = self._cache.find(key)
        if layer is None:
            layer = self._stream(produce)
        elif not self._repository.has_blob(layer.descriptor.digest):
            path = self._cache.blob_path(layer.descriptor.digest)
            self._repository.push_blob(layer.descriptor, lambda: _read(path))
            self._count(layer.descriptor.size)
        self._records.save(key, layer)
        return layer

    def _stream(self, produce: Callable[[Sink], FinishedLayer]) -> FinishedLayer:
        made: list[FinishedLayer] = []
        # A try that fails midway is made anew from the store, which is still there.
        sent = self._repository.push_stream(lambda: _run(produce, made), self._media_type)
        layer = made[-1]
        if (sent.digest, sent.size) != (layer.descriptor.digest, layer.descriptor.size):
            raise CheckedFalse(
                f"the registry was sent {sent.digest}, the layer is {layer.descriptor.digest}",
                hint="this is a fault of nix-seed, or of this machine: please report it",
            )
        self._count(sent.size)
        return layer

    def _count(self, size: int) -> None:
        with self._lock:
            self.sent += size


def _read(path: Path) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _run(produce: Callable[[Sink], FinishedLayer], made: list[FinishedLayer]) -> Iterator[bytes]:
    """Yield what *produce* writes; *made* gets its result, its error is raised here."""
    pipe = _Pipe()
    worker = threading.Thread(target=pipe.run, args=(produce, made), daemon=True)
    worker.start()
    try:
        yield from pipe
    finally:
        pipe.close()
        worker.join()


class _Abandoned(Exception):
    """Nobody reads any more: the upload failed."""


class _Pipe:
    """A sink on one side, an iterator on the other, a few chunks in between."""

    def __init__(self) -> None:
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(_IN_FLIGHT)
        self._closed = threading.Event()

    def run(self, produce: Callable[[Sink], FinishedLayer], made: list[FinishedLayer]) -> None:
        try:
            made.append(produce(self))
            self._put(None)
        except _Abandoned:
            pass
        except BaseException as error:
            self._put_last(error)

    def write(self, data: bytes, /) -> None:
        """Hand over *data*; waits while the other side is busy."""
        self._put(bytes(data))

    def _put(self, item: bytes | BaseException | None) -> None:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.5)
            except queue.Full:
                continue
            return
        raise _Abandoned

    def _put_last(self, error: BaseException) -> None:
        try:
            self._put(error)
        except _Abandoned:
            return

    def __iter__(self) -> Iterator[bytes]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """Let the writing side give up."""
        self._closed.set()
