"""The seek table of the zstd seekable format (zstd, contrib/seekable_format, version 0.1.0).

A seekable file is any number of independent zstd frames and, last, this table in a skippable frame,
which every zstd decoder passes over. All integers are little endian::

    0x184D2A5E  size of what follows
      { compressed size (4)  decompressed size (4) } for each frame
      number of frames (4)  descriptor (1: no checksums)  0x8F92EAB1
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import accumulate
from typing import Self

from nix_seed.ground.errors import InputError

__all__ = ["FOOTER_SIZE", "Frame", "SeekTable"]

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
    def parse(cls, text: bytes, what: str) -> Self:
        """Read the whole table, no byte more or less; *what* names its file in errors."""
        size = cls.size_from_footer(text[-FOOTER_SIZE:], what)
        if size != len(text) or _HEAD.unpack_from(text) != (_SKIPPABLE, size - _HEAD.size):
            raise InputError(f"{what}: the seek table's size or magic number is wrong")
        body = text[_HEAD.size : -FOOTER_SIZE]
        return cls(tuple(Frame(*pair) for pair in _ENTRY.iter_unpack(body)))

    @classmethod
    def size_from_footer(cls, footer: bytes, what: str) -> int:
        """Return the table's whole size in bytes, from the last ``FOOTER_SIZE`` bytes of a file."""
        if len(footer) != FOOTER_SIZE or _FOOTER.unpack(footer)[2] != _SEEKABLE:
            raise InputError(f"{what} does not end in a zstd seek table")
        number, descriptor, _ = _FOOTER.unpack(footer)
        if descriptor != 0:
            raise InputError(f"{what}: the seek table's descriptor {descriptor:#04x} is not 0")
        if number > _MAX_FRAMES:
            raise InputError(f"{what}: the seek table claims {number} frames")
        return _HEAD.size + int(number) * _ENTRY.size + FOOTER_SIZE

    def offsets(self) -> tuple[int, ...]:
        """Where each frame starts in the file, and at the end where the table does."""
        return tuple(accumulate((frame.compressed for frame in self.frames), initial=0))

    def check_blob(self, size: int, what: str) -> None:
        """Raise ``InputError`` unless frames and table together make a file of *size* bytes."""
        table = _HEAD.size + len(self.frames) * _ENTRY.size + FOOTER_SIZE
        if self.offsets()[-1] + table != size:
            raise InputError(f"{what}: its frames and its size of {size} bytes disagree")
