"""Where zstd frames end, without decoding them (RFC 8878, section 3.1).

A frame tells the size of each of its blocks, so a stream can be cut into independent frames as it
arrives, with no seek table at hand, and each frame decoded by whoever is free.
"""

from __future__ import annotations

from collections.abc import Iterator

from nix_seed.ground.errors import CheckedFalse

__all__ = ["FrameCutter"]

_MAGIC = 0xFD2FB528
_SKIPPABLE = 0x184D2A50
_DICTIONARY_ID = (0, 1, 2, 4)
_RLE, _RESERVED = 1, 3
_LONGEST_HEADER = 18


class FrameCutter:
    """Cuts a stream, given in pieces of any size, into frames; skippable frames are left out.

    *largest* bounds a compressed frame, in bytes; *what* names the stream in errors, which are
    ``CheckedFalse``.
    """

    def __init__(self, largest: int, what: str) -> None:
        self._largest = largest
        self._what = what
        self._buffer = bytearray()
        self._block = 0  # where the next block begins; 0 before the frame's header was read
        self._checksum = 0
        self._whole = 0  # the frame's size, once its last block was seen

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take *data*; yield the frames that are complete now."""
        self._buffer += data
        while (size := self._frame_size()) is not None:
            if self._buffer[:4] == _MAGIC.to_bytes(4, "little"):
                yield bytes(memoryview(self._buffer)[:size])
            del self._buffer[:size]
            self._block = self._whole = 0
        if len(self._buffer) > self._largest:
            raise self._broken(f"has a frame of more than {self._largest} bytes")

    def finish(self) -> None:
        """Raise unless the stream ended where a frame did."""
        if self._buffer:
            raise self._broken("ends in the middle of a frame")

    def _frame_size(self) -> int | None:
        """Return the size of the frame at the front, None while it is incomplete."""
        buffer = self._buffer
        if self._block == 0:
            if len(buffer) < 8:
                return None
            magic = int.from_bytes(buffer[:4], "little")
            if magic & ~0xF == _SKIPPABLE:
                size = 8 + int.from_bytes(buffer[4:8], "little")
                return size if size <= len(buffer) else None
            if magic != _MAGIC:
                raise self._broken("is not intact zstd")
            if len(buffer) < _LONGEST_HEADER and len(buffer) < _header_size(buffer[4]):
                return None
            self._block, self._checksum = _header_size(buffer[4]), buffer[4] & 4
        while not self._whole and self._block + 3 <= len(buffer):
            header = int.from_bytes(buffer[self._block : self._block + 3], "little")
            kind, size = header >> 1 & 3, header >> 3
            if kind == _RESERVED:
                raise self._broken("is not intact zstd")
            self._block += 3 + (1 if kind == _RLE else size)
            if header & 1:
                self._whole = self._block + self._checksum
        return self._whole if 0 < self._whole <= len(buffer) else None

    def _broken(self, problem: str) -> CheckedFalse:
        return CheckedFalse(
            f"{self._what} {problem}", hint="the image is damaged or was altered: get it again"
        )


def _header_size(descriptor: int) -> int:
    """Magic number, descriptor, window, dictionary and content size (3.1.1.1)."""
    single = descriptor >> 5 & 1
    flag = descriptor >> 6
    content = (1 << flag) if flag else single
    return 4 + 1 + (1 - single) + _DICTIONARY_ID[descriptor & 3] + content
