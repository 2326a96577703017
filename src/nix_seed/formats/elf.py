"""The one thing of an ELF file that tells what Linux starts in its place: its interpreter.

System V ABI, chapters 4 and 5: the header, at the file's start, says where the program headers are;
the one of type ``PT_INTERP`` says where the path of the loader is. A static program has none.
"""

import struct
from typing import BinaryIO

_PT_INTERP = 3
_MOST = 4096  # bytes of a path, as Linux takes it
_HEADERS = 1 << 16
_FAR = 1 << 62  # no file is as large
# By the file's class: where the program headers are, of what size and how many; and, in one of
# them, its type, where what it names is, and how long that is. (struct passes over spaces.)
_HEADER = {1: "16x 12x I 10x H H", 2: "16x 16x Q 14x H H"}
_PROGRAM = {1: "I I 8x I", 2: "I 4x Q 16x Q"}


def find_loader(file: BinaryIO) -> str:
    """Return the path of the loader that the ELF *file*, open at its start, names; "" if none.

    What is no ELF file, or a damaged one, names none either: Linux does not start it.
    """
    ident = file.read(16)
    if len(ident) < 16 or ident[:4] != b"\x7fELF" or ident[4] not in _HEADER:
        return ""
    order = ">" if ident[5] == 2 else "<"
    header = struct.Struct(order + _HEADER[ident[4]])
    program = struct.Struct(order + _PROGRAM[ident[4]])
    head = ident + file.read(header.size - 16)
    if len(head) < header.size:
        return ""
    offset, size, count = header.unpack(head)
    if size < program.size or size * count > _HEADERS:
        return ""
    table = _read(file, offset, size * count)
    for start in range(0, len(table) - program.size + 1, size):
        kind, where, length = program.unpack_from(table, start)
        if kind == _PT_INTERP:
            path = _read(file, where, min(length, _MOST)).partition(b"\0")[0]
            return path.decode("utf-8", "backslashreplace")
    return ""


def _read(file: BinaryIO, offset: int, length: int) -> bytes:
    if offset >= _FAR:
        return b""
    file.seek(offset)
    return file.read(length)
