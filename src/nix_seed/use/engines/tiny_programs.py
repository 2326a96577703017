"""Programs of some hundred bytes for containers: nothing need be in an image to run them.

Each is a row of system calls with constant arguments, in an ELF file of one segment with data and
one with code.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

_HEAD: Final = 64 + 2 * 56  # elf.h: Elf64_Ehdr, two Elf64_Phdr
_CODE, _DATA = 0x400000, 0x600000 + _HEAD
_X86, _ARM = "x86_64", "aarch64"
_NUMBERS: Final = {
    _X86: {"socket": 41, "connect": 42, "sendmsg": 46, "bind": 49, "listen": 50, "exit": 60},
    _ARM: {"socket": 198, "connect": 203, "sendmsg": 211, "bind": 200, "listen": 201, "exit": 93},
}
_ELF_NUMBERS: Final = {_X86: 62, _ARM: 183}
MACHINES: Final = frozenset(_NUMBERS)
"""Those that programs are made for, as the kernel calls them."""

Argument = int | str
"""A number, or the name of what an earlier call returned: ``one`` or ``two``."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A system call by its *name*; the result is kept *as_*, and stored as a number at *store*."""

    name: str
    arguments: Sequence[Argument]
    as_: str = ""
    store: int = 0


def ending_program(machine: str) -> bytes:
    """Return a program that does nothing but end, with exit code 0."""
    return _program(machine, [_Call("exit", [0])], b"")


def listening_program(machine: str, port: int, path: str) -> bytes:
    """Return a program that listens at *port* of loopback, and sends that socket to *path*.

    The Unix socket there gets one byte, and the descriptor beside it (``SCM_RIGHTS``). Whoever
    takes it sees whether it listens at *port*: where that was not free, it does elsewhere. *path*
    has 100 bytes at most.
    """
    address = struct.pack("<HH4s8x", socket.AF_INET, socket.htons(port), bytes([127, 0, 0, 1]))
    receiver = struct.pack("<H110s", socket.AF_UNIX, path.encode())
    vector_at = _DATA + len(address + receiver)
    control_at, message_at, byte_at = vector_at + 16, vector_at + 40, vector_at + 96
    vector = struct.pack("<QQ", byte_at, 1)
    control = struct.pack("<Qiii4x", 20, socket.SOL_SOCKET, socket.SCM_RIGHTS, -1)
    message = struct.pack("<QQQQQQQ", 0, 0, vector_at, 1, control_at, 24, 0)
    calls = [
        _Call("socket", [socket.AF_INET, socket.SOCK_STREAM, 0], "one", control_at + 16),
        _Call("bind", ["one", _DATA, len(address)]),
        _Call("listen", ["one", 128]),
        _Call("socket", [socket.AF_UNIX, socket.SOCK_STREAM, 0], "two"),
        _Call("connect", ["two", _DATA + len(address), 2 + len(path.encode()) + 1]),
        _Call("sendmsg", ["two", message_at, 0]),
        _Call("exit", [0]),
    ]
    return _program(machine, calls, address + receiver + vector + control + message + b"+")


def _program(machine: str, calls: Iterable[_Call], data: bytes) -> bytes:
    write = {_X86: _x86, _ARM: _arm}[machine]
    code = b"".join(write(call, _NUMBERS[machine][call.name]) for call in calls)
    data += bytes(-len(data) % 16)
    start, end = _HEAD + len(data), _HEAD + len(data) + len(code)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    number, entry = _ELF_NUMBERS[machine], _CODE + start
    head = struct.pack("<HHIQQQIHHHHHH", 2, number, 1, entry, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    # PT_LOAD: readable and executable; readable and writable.
    text = struct.pack("<IIQQQQQQ", 1, 5, 0, _CODE, _CODE, end, end, 0x10000)
    words = struct.pack("<IIQQQQQQ", 1, 6, _HEAD, _DATA, _DATA, len(data), len(data), 0x10000)
    return ident + head + text + words + data + code


def _x86(call: _Call, number: int) -> bytes:
    """Encode ``mov eax, number; mov edi…esi…edx, argument; syscall``; r12 and r13 keep results."""
    code = b"\xb8" + struct.pack("<I", number)
    for register, argument in zip((b"\xbf", b"\xbe", b"\xba"), call.arguments, strict=False):
        if isinstance(argument, int):
            code += register + struct.pack("<I", argument)
        else:  # as the first argument alone: mov edi, r12d or r13d
            code += {"one": b"\x44\x89\xe7", "two": b"\x44\x89\xef"}[argument]
    code += b"\x0f\x05"
    code += {"": b"", "one": b"\x41\x89\xc4", "two": b"\x41\x89\xc5"}[call.as_]  # mov r12d, eax
    if call.store:
        code += b"\x89\x04\x25" + struct.pack("<I", call.store)  # mov [store], eax
    return code


def _arm(call: _Call, number: int) -> bytes:
    """Encode ``mov x8, number; mov x0…x2, argument; svc 0``; x19 and x20 keep results."""
    kept = {"one": 19, "two": 20}
    words = _arm_number(8, number)
    for register, argument in enumerate(call.arguments):
        if isinstance(argument, int):
            words += _arm_number(register, argument)
        else:
            words.append(0xAA0003E0 | kept[argument] << 16 | register)
    words.append(0xD4000001)
    if call.as_:
        words.append(0xAA0003E0 | kept[call.as_])  # mov x19, x0
    if call.store:
        words += [*_arm_number(1, call.store), 0xB9000020]  # str w0, [x1]
    return struct.pack(f"<{len(words)}I", *words)


def _arm_number(register: int, number: int) -> list[int]:
    low, high = number & 0xFFFF, number >> 16
    return [0x52800000 | low << 5 | register, 0x72A00000 | high << 5 | register]
