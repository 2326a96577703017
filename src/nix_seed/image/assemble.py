"""Threads that compress frames, and the buffers the frames are made in.

Threads are enough: reading, hashing and compressing all release the interpreter's lock (decision
0010 has the figures). The number of buffers bounds memory however many layers are under way.

Store paths to finished layers: several layers at once, the largest first.

Layers whose key a target already knows are neither read nor compressed. Where layers go is the
caller's: ``LayerTarget`` is implemented by the layer cache, and can be by an upload.
"""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Final, Protocol

from nix_seed.formats.nix.store_path import PathInfo
from nix_seed.image.rules.frames import FRAME_SIZE, Compressor, Sink
from nix_seed.image.rules.layer import FinishedLayer, StoreReader, layer_key, write_layer

_MOST_BUFFERS: Final = 32


class Stopped(BaseException):
    """Raised in the threads of layers whose sibling failed; never leaves ``assemble_layers``."""


class FrameThreads:
    """A ``FramePool`` of *threads* threads, shared by all layers under way."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="compress")
        self._free: list[bytearray] = []
        self._unmade = min(2 * threads + 2, _MOST_BUFFERS)
        self._changed = threading.Condition()
        self._stopped = False
        self._ahead = min(threads + 1, _MOST_BUFFERS)

    @property
    def ahead(self) -> int:
        """How many frames one layer may have under way."""
        return self._ahead

    def take(self) -> bytearray:
        """Lend a buffer; raise ``Stopped`` after ``stop``."""
        with self._changed:
            while not (self._free or self._unmade or self._stopped):
                self._changed.wait()
            if self._stopped:
                raise Stopped
            if self._free:
                # The one given back last is the likeliest to be in the processor's cache.
                return self._free.pop()
            self._unmade -= 1
        return bytearray(FRAME_SIZE)

    def give(self, buffer: bytearray) -> None:
        """Take a buffer back."""
        with self._changed:
            self._free.append(buffer)
            self._changed.notify()

    def submit(
        self, compress: Callable[[memoryview], bytes], buffer: bytearray, size: int
    ) -> Future[bytes]:
        """Compress the first *size* bytes of *buffer* in one of the threads."""
        return self._threads.submit(self._work, compress, buffer, size)

    def stop(self) -> None:
        """Make every layer under way give up at its next frame."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def close(self) -> None:
        """Wait for the threads and let them go."""
        self._threads.shutdown(cancel_futures=True)

    def _work(self, compress: Callable[[memoryview], bytes], buffer: bytearray, size: int) -> bytes:
        try:
            with memoryview(buffer) as view, view[:size] as part:
                return compress(part)
        finally:
            self.give(buffer)


@dataclass(frozen=True, slots=True)
class LayerStarted:
    """Layer *position* (from 0, in the order given) of *nar_size* bytes is being read."""

    position: int
    nar_size: int


@dataclass(frozen=True, slots=True)
class LayerFinished:
    """The layer is whole, or was there already."""

    position: int
    layer: FinishedLayer
    reused: bool


Event = LayerStarted | LayerFinished


@dataclass(frozen=True, slots=True)
class AssembledLayer:
    """A layer, the key it is cached under, and whether it came from there."""

    key: str
    layer: FinishedLayer
    reused: bool


class LayerTarget(Protocol):
    """Where layers go. Called from several threads."""

    def find(self, key: str) -> FinishedLayer | None:
        """Return the layer of that key if the target has it, whole."""
        ...

    def write(self, key: str, produce: Callable[[Sink], FinishedLayer]) -> FinishedLayer:
        """Call *produce* with a sink; keep what it took, unless it raises."""
        ...


@dataclass(frozen=True, slots=True)
class Afresh:
    """Where layers go that are all made anew, whatever *target* holds."""

    target: LayerTarget

    def find(self, _key: str) -> None:
        """Return nothing."""

    def write(self, key: str, produce: Callable[[Sink], FinishedLayer]) -> FinishedLayer:
        """Have *target* keep what *produce* makes."""
        return self.target.write(key, produce)


def assemble_layers(
    layers: Sequence[Sequence[PathInfo]],
    compressor: Compressor,
    store: StoreReader,
    target: LayerTarget,
    *,
    threads: int | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> tuple[AssembledLayer, ...]:
    """Write every layer to *target* and return them in the order given.

    *threads* is the number of processors by default. *on_event* is called from several threads.
    The first error stops the other layers and is raised; layers that were finished stay in the
    target, so that the next run goes on from there.
    """
    compressor.check_at_hand()
    work = _Work(compressor, store, target, on_event or (lambda _: None))
    count = threads or os.cpu_count() or 1
    order = sorted(range(len(layers)), key=lambda position: -_nar_size(layers[position]))
    frames = FrameThreads(count)
    readers = ThreadPoolExecutor(count, thread_name_prefix="layer")
    try:
        futures = {
            position: readers.submit(work.do, position, layers[position], frames)
            for position in order
        }
        _wait([futures[position] for position in range(len(layers))])
        return tuple(futures[position].result() for position in range(len(layers)))
    finally:
        frames.stop()
        readers.shutdown(cancel_futures=True)
        frames.close()


def _wait(futures: Sequence[Future[AssembledLayer]]) -> None:
    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
    for future in futures:
        # In the order given, so that of several errors the same one is told each time.
        error = future.exception() if future in done else None
        if error is not None:
            raise error


@dataclass(frozen=True, slots=True)
class _Work:
    compressor: Compressor
    store: StoreReader
    target: LayerTarget
    on_event: Callable[[Event], None]

    def do(self, position: int, paths: Sequence[PathInfo], frames: FrameThreads) -> AssembledLayer:
        key = layer_key(paths, self.compressor)
        found = self.target.find(key)
        if found is None:
            self.on_event(LayerStarted(position, _nar_size(paths)))
        layer = found or self.target.write(
            key, lambda sink: write_layer(paths, self.compressor, self.store, sink, frames)
        )
        self.on_event(LayerFinished(position, layer, reused=found is not None))
        return AssembledLayer(key, layer, reused=found is not None)


def _nar_size(paths: Sequence[PathInfo]) -> int:
    return sum(info.nar_size for info in paths)
