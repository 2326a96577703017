"""Threads that compress frames, and the buffers the frames are made in.

Threads are enough: reading, hashing and compressing all release the interpreter's lock (decision
0010 has the figures). The number of buffers bounds memory however many layers are under way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from nix_seed.rules.frames import FRAME_SIZE

__all__ = ["FrameThreads", "Stopped"]

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
