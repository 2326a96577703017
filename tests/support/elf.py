"""ELF files of just what says which loader Linux starts for them."""

from __future__ import annotations

import struct

__all__ = ["elf"]


def elf(loader: bytes | None, *, bits: int = 64, order: str = "<") -> bytes:
    """Return a file with two program headers: one of nothing, and that of *loader*, if any."""
    ident = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1]) + bytes(9)
    header, program = ("HHIQQQIHHHHHH", "IIQQQQQQ") if bits == 64 else ("HHIIIIIHHHHHH", "8I")
    start = 16 + struct.calcsize(order + header)
    size = struct.calcsize(order + program)
    behind = start + 2 * size
    kind, path = (0, b"") if loader is None else (3, loader + b"\0")
    sizes = (start, size, 2, 0, 0, 0)
    head = struct.pack(order + header, 2, 62, 1, 0, start, 0, 0, *sizes)
    length = len(path)
    if bits == 64:
        interp = struct.pack(order + program, kind, 4, behind, 0, 0, length, length, 1)
    else:
        interp = struct.pack(order + program, kind, behind, 0, 0, length, length, 4, 1)
    return ident + head + bytes(size) + interp + path
