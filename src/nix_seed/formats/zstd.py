"""Where zstd frames end (RFC 8878, section 3.1), and the seek table that lists them.

A frame tells the size of each of its blocks, so a stream can be cut into independent frames as it
arrives, with no seek table at hand, and each frame decoded by whoever is free.

In the zstd seekable format (zstd, contrib/seekable_format, version 0.1.0) a file is any number of
independent zstd frames and, last, the table in a skippable frame, which every zstd decoder passes
over. All integers are little endian::

    0x184D2A5E  size of what follows
      { compressed size (4)  decompressed size (4) } for each frame
      number of frames (4)  descriptor (1: no checksums)  0x8F92EAB1
"""

import struct
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Self

from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.core.values import dataclass

_MAGIC = 0xFD2FB528
_FIRST_SKIPPABLE = 0x184D2A50
_DICTIONARY_ID = (0, 1, 2, 4)
_RLE, _RESERVED = 1, 3
_LONGEST_HEADER = 18


class FrameCutter:
    """Cuts a stream, given in pieces of any size, into frames; skippable frames are left out.

    *largest* bounds a compressed frame, in bytes; *label* names the stream in errors, which are
    ``CheckedFalse``.
    """

    def __init__(self, largest: int, label: str) -> None:
        self._largest = largest
        self._label = label
        self._buffer = bytearray()
        self._block = 0  # where the next block begins; 0 before the frame's header was read
        self._checksum = 0
        self._whole = 0  # the frame's size, once its last block was seen

    def feed(self, data: bytes) -> Iterator[memoryview]:
        """Take *data*; yield the frames that are complete now."""
        self._buffer += data
        whole, begin = self._buffer, 0
        while (size := self._frame_size(begin)) is not None:
            if whole[begin : begin + 4] == _MAGIC.to_bytes(4, "little"):
                yield memoryview(whole)[begin : begin + size]
            begin += size
            self._block = self._whole = 0
        if begin:
            # What was yielded looks at the old one, which is copied only from there on.
            self._buffer = bytearray(memoryview(whole)[begin:])
        if len(self._buffer) > self._largest:
            raise self._broken(f"has a frame of more than {self._largest} bytes")

    def finish(self) -> None:
        """Raise unless the stream ended where a frame did."""
        if self._buffer:
            raise self._broken("ends in the middle of a frame")

    def _frame_size(self, begin: int) -> int | None:
        """Return the size of the frame at *begin*, None while it is incomplete."""
        buffer, there = self._buffer, len(self._buffer) - begin
        if self._block == 0:
            if there < 8:
                return None
            magic = int.from_bytes(buffer[begin : begin + 4], "little")
            descriptor = buffer[begin + 4]
            if magic & ~0xF == _FIRST_SKIPPABLE:
                size = 8 + int.from_bytes(buffer[begin + 4 : begin + 8], "little")
                return size if size <= there else None
            if magic != _MAGIC:
                raise self._broken("is not intact zstd")
            if there < _LONGEST_HEADER and there < _header_size(descriptor):
                return None
            self._block, self._checksum = _header_size(descriptor), descriptor & 4
        while not self._whole and self._block + 3 <= there:
            at = begin + self._block
            header = int.from_bytes(buffer[at : at + 3], "little")
            kind, size = header >> 1 & 3, header >> 3
            if kind == _RESERVED:
                raise self._broken("is not intact zstd")
            self._block += 3 + (1 if kind == _RLE else size)
            if header & 1:
                self._whole = self._block + self._checksum
        return self._whole if 0 < self._whole <= there else None

    def _broken(self, problem: str) -> CheckedFalse:
        return CheckedFalse(
            f"{self._label} {problem}", hint="the image is damaged or was altered: get it again"
        )


class ChunkFile:
    """A file to read *chunks* from, for decoders of streams: as much at once as comes."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)

    def read(self, size: int = -1) -> bytes:  # noqa: ARG002
        """Return the next chunk, whatever *size* is asked."""
        return next((each for each in self._chunks if each), b"")


def _header_size(descriptor: int) -> int:
    """Magic number, descriptor, window, dictionary and content size (3.1.1.1)."""
    single = descriptor >> 5 & 1
    flag = descriptor >> 6
    content = (1 << flag) if flag else single
    return 4 + 1 + (1 - single) + _DICTIONARY_ID[descriptor & 3] + content


_SKIPPABLE = 0x184D2A5E
_SEEKABLE = 0x8F92EAB1
_HEAD = struct.Struct("<II")
_ENTRY = struct.Struct("<II")
_FOOTER = struct.Struct("<IBI")
_MAX_FRAMES = 0x8000000

FOOTER_SIZE = _FOOTER.size
"""Bytes at the end of a file from which ``SeekTable.size_from_footer`` tells the table's size."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: its size in the file and the size of what it holds, in bytes."""

    compressed: int
    size: int


@dataclass(frozen=True, slots=True)
class SeekTable:
    """The frames of a file in order."""

    frames: tuple[Frame, ...]

    def dump(self) -> bytes:
        """Return the table as the skippable frame that ends a file."""
        if len(self.frames) > _MAX_FRAMES:
            raise InputError(f"{len(self.frames)} frames are too many for one seek table")
        try:
            body = b"".join(_ENTRY.pack(frame.compressed, frame.size) for frame in self.frames)
        except struct.error as error:
            raise InputError("a frame of 4 GiB or more has no place in a seek table") from error
        body += _FOOTER.pack(len(self.frames), 0, _SEEKABLE)
        return _HEAD.pack(_SKIPPABLE, len(body)) + body

    @classmethod
    def parse(cls, text: bytes, label: str) -> Self:
        """Read the whole table, no byte more or less; *label* names its file in errors."""
        size = cls.size_from_footer(text[-FOOTER_SIZE:], label)
        if size != len(text) or _HEAD.unpack_from(text) != (_SKIPPABLE, size - _HEAD.size):
            raise InputError(f"{label}: the seek table's size or magic number is wrong")
        body = text[_HEAD.size : -FOOTER_SIZE]
        return cls(tuple(Frame(*pair) for pair in _ENTRY.iter_unpack(body)))

    @classmethod
    def size_from_footer(cls, footer: bytes, label: str) -> int:
        """Return the table's whole size in bytes, from the last ``FOOTER_SIZE`` bytes of a file."""
        if len(footer) != FOOTER_SIZE or _FOOTER.unpack(footer)[2] != _SEEKABLE:
            raise InputError(f"{label} does not end in a zstd seek table")
        number, descriptor, _ = _FOOTER.unpack(footer)
        if descriptor != 0:
            raise InputError(f"{label}: the seek table's descriptor {descriptor:#04x} is not 0")
        if number > _MAX_FRAMES:
            raise InputError(f"{label}: the seek table claims {number} frames")
        return _HEAD.size + int(number) * _ENTRY.size + FOOTER_SIZE

    def offsets(self) -> tuple[int, ...]:
        """Where each frame starts in the file, and at the end where the table does."""
        return tuple(accumulate((frame.compressed for frame in self.frames), initial=0))

    def check_blob(self, size: int, label: str) -> None:
        """Raise ``InputError`` unless frames and table together make a file of *size* bytes."""
        table = _HEAD.size + len(self.frames) * _ENTRY.size + FOOTER_SIZE
        if self.offsets()[-1] + table != size:
            raise InputError(f"{label}: its frames and its size of {size} bytes disagree")
