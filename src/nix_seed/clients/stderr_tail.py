"""Keeps the end of all that goes to standard error, from children as well, while it passes by."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Tail", "stderr_tail"]

_KEPT = 256 << 10  # bytes


class Tail:
    """The last bytes that passed."""

    def __init__(self) -> None:
        self._data = bytearray()

    def add(self, chunk: bytes) -> None:
        """Remember *chunk*, and forget what is too old."""
        self._data += chunk
        del self._data[:-_KEPT]

    @property
    def text(self) -> str:
        """What is kept, as text."""
        return self._data.decode("utf-8", "replace")


@contextmanager
def stderr_tail() -> Iterator[Tail]:
    """Pass on what is written to file descriptor 2, and keep its end.

    Nix writes its progress and its errors straight there; this is how they can be quoted. A thread
    copies, so no process may be forked meanwhile that goes on as Python.
    """
    tail = Tail()
    sys.stderr.flush()
    real = os.dup(2)
    reader, writer = os.pipe()
    os.dup2(writer, 2)
    os.close(writer)
    thread = threading.Thread(target=_copy, args=(reader, real, tail), daemon=True)
    thread.start()
    try:
        yield tail
    finally:
        sys.stderr.flush()
        os.dup2(real, 2)
        # Whoever inherited the pipe and lives on keeps it open: its words are not waited for long.
        thread.join(timeout=5)
        if not thread.is_alive():
            os.close(reader)
            os.close(real)


def _copy(reader: int, real: int, tail: Tail) -> None:
    while chunk := os.read(reader, 1 << 16):
        tail.add(chunk)
        _write(real, chunk)


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
