"""A read-only FUSE file system, speaking the kernel's protocol itself (linux/fuse.h).

What an image holds never changes, so the kernel may keep names, attributes, link targets and pages
for as long as it likes. Opening needs no answer of ours; then most of what a build does is answered
by the kernel alone.
"""

import errno
import os
import stat
import struct
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from nix_seed.image.rules.contents import EXECUTABLE, FOLDER, LINK, PLAIN
from nix_seed.use.rules.tree import ROOT, Piece, StoreTree

_IN: Final = struct.Struct("<IIQQIIIHH")
_OUT: Final = struct.Struct("<IiQ")
_INIT_IN: Final = struct.Struct("<IIII")
_INIT_OUT: Final = struct.Struct("<IIIIHHIIHHIIH22x")
_ATTR: Final = struct.Struct("<QQQQQQIIIIIIIIII")
_ATTR_OUT: Final = struct.Struct("<QII")
_ENTRY_OUT: Final = struct.Struct("<QQQQII")
_READ_IN: Final = struct.Struct("<QQI")
_DIRENT: Final = struct.Struct("<QQII")
_STATFS: Final = struct.Struct("<QQQQQIIII24x")

_LOOKUP, _FORGET, _GETATTR, _READLINK = 1, 2, 3, 5
_READ, _STATFS_CALL, _INIT, _READDIR = 15, 17, 26, 28
_INTERRUPT, _DESTROY, _BATCH_FORGET, _READDIRPLUS = 36, 38, 42, 44
_SILENT: Final = frozenset((_FORGET, _INTERRUPT, _BATCH_FORGET))
# The kernel stops asking once it is told that there is no such call: open and opendir (it opens
# on its own), the four of extended attributes, flush, release, releasedir, fsync.
_ABSENT: Final = frozenset((14, 18, 20, 21, 22, 23, 24, 25, 27, 29, 30, 34, 39, 46, 48, 50, 52))

_MAJOR, _MINOR = 7, 40
_RESEND: Final = 7  # of Linux 6.9 and later: FUSE_NOTIFY_RESEND
_ASYNC_READ, _READDIRPLUS_DO, _READDIRPLUS_AUTO = 1 << 0, 1 << 13, 1 << 14
_NO_OPEN, _PARALLEL_DIROPS, _MAX_PAGES = 1 << 17, 1 << 18, 1 << 22
_CACHE_SYMLINKS, _NO_OPENDIR = 1 << 23, 1 << 24
_WANTED: Final = (
    _ASYNC_READ | _READDIRPLUS_DO | _READDIRPLUS_AUTO | _NO_OPEN | _PARALLEL_DIROPS
) | (_MAX_PAGES | _CACHE_SYMLINKS | _NO_OPENDIR)
_PAGES: Final = 256  # of a request, thus 1 MiB
_BUFFER: Final = 1 << 16
_BACKGROUND: Final = 64
_TURN: Final = 0.0002  # seconds that a thread may go on for while another waits
_FOREVER: Final = 1 << 62  # seconds

_MODES: Final = {
    PLAIN: stat.S_IFREG | 0o444,
    EXECUTABLE: stat.S_IFREG | 0o555,
    LINK: stat.S_IFLNK | 0o777,
    FOLDER: stat.S_IFDIR | 0o555,
}
# dirent.h: DT_REG, DT_LNK, DT_DIR.
_TYPES: Final = {PLAIN: 8, EXECUTABLE: 8, LINK: 10, FOLDER: 4}

Contents = Callable[[Sequence[Piece]], list[bytes | memoryview]]
"""Returns the bytes of pieces. ``OSError`` where they cannot be had."""


class FuseServer:
    """Answers the kernel on the descriptor *device* until the file system is unmounted.

    All of it belongs to *owner*, a user and a group.
    """

    def __init__(
        self, device: int, tree: StoreTree, contents: Contents, owner: tuple[int, int] = (0, 0)
    ) -> None:
        self._owner = owner
        self._device = device
        self._tree = tree
        self._contents = contents
        self._threads: list[threading.Thread] = []
        self._calls: dict[int, Callable[[int, bytes], list[bytes | memoryview]]] = {
            _LOOKUP: self._lookup,
            _GETATTR: lambda number, _: [_ATTR_OUT.pack(_FOREVER, 0, 0) + self._attributes(number)],
            _READLINK: lambda number, _: [tree.target(number)],
            _READ: self._read,
            _STATFS_CALL: lambda *_: [_STATFS.pack(0, 0, 0, 0, 0, 4096, 255, 4096, 0)],
            _INIT: self._init,
            _READDIR: partial(self._listing, plus=False),
            _READDIRPLUS: partial(self._listing, plus=True),
            _DESTROY: lambda _number, _body: [],
        }

    def start(self, threads: int = 8) -> None:
        """Begin to answer, in *threads* threads."""
        # Else each answer may wait for as many fetching threads, five milliseconds for each.
        sys.setswitchinterval(_TURN)
        for number in range(threads):
            thread = threading.Thread(target=self._serve, name=f"fuse-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def take_over(self) -> bool:
        """Begin to answer in the place of one that died; False where what it had read is lost."""
        try:
            os.write(self._device, _OUT.pack(_OUT.size, _RESEND, 0))
        except OSError:
            return False
        self.start()
        return True

    def wait(self, timeout: float | None = None) -> bool:
        """Return once nothing is mounted any more, or False after *timeout* seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _serve(self) -> None:
        while True:
            try:
                request = os.read(self._device, _BUFFER)
            except OSError as error:
                # ENOENT: the request was taken back before it was read.
                if error.errno in (errno.EINTR, errno.ENOENT, errno.EAGAIN):
                    continue
                return
            if not request:
                return
            self._answer(request)

    def _answer(self, request: bytes) -> None:
        _, call, unique, number, *_ = _IN.unpack_from(request)
        if call in _SILENT:
            return
        problem, parts = 0, []
        try:
            handler = self._calls.get(call)
            if handler is not None:
                parts = handler(number, request[_IN.size :])
            else:
                problem = errno.ENOSYS if call in _ABSENT else errno.EROFS
        except OSError as error:
            problem = error.errno or errno.EIO
        except KeyError:
            problem = errno.ENOENT
        except Exception:
            # Whoever waits for an answer must get one; a thread that dies would never give it.
            problem = errno.EIO
        size = _OUT.size + sum(map(len, parts))
        try:
            os.writev(self._device, [_OUT.pack(size, -problem, unique), *parts])
        except OSError:
            return  # it was taken back meanwhile, or nothing is mounted any more

    def _init(self, _number: int, body: bytes) -> list[bytes | memoryview]:
        _, minor, read_ahead, offered = _INIT_IN.unpack_from(body)
        flags = _WANTED & offered
        return [
            _INIT_OUT.pack(
                *(_MAJOR, min(minor, _MINOR), read_ahead, flags),
                *(_BACKGROUND, _BACKGROUND * 3 // 4, 4096, 1_000_000_000, _PAGES, 0),
                *(0, 0, 0),
            )
        ]

    def _lookup(self, number: int, body: bytes) -> list[bytes | memoryview]:
        found = self._tree.entries(number).get(body.rstrip(b"\0"))
        # An entry of number 0 says that there is none, and may be kept as well.
        return (
            [_ENTRY_OUT.pack(0, 0, _FOREVER, 0, 0, 0) + bytes(_ATTR.size)]
            if (found is None)
            else [self._entry(found)]
        )

    def _read(self, number: int, body: bytes) -> list[bytes | memoryview]:
        _, offset, size = _READ_IN.unpack_from(body)
        pieces = self._tree.pieces(number, offset, size)
        return [*self._contents(pieces)] if pieces else []

    def _listing(self, number: int, body: bytes, *, plus: bool) -> list[bytes | memoryview]:
        _, offset, room = _READ_IN.unpack_from(body)
        names = [(b".", number), (b"..", number), *self._tree.entries(number).items()]
        found: list[bytes] = []
        for after, (name, entry) in enumerate(names[offset:], offset + 1):
            kind = _TYPES[self._tree.stat(entry).kind]
            record = _DIRENT.pack(entry, after, len(name), kind) + name
            record += bytes(-len(record) % 8)
            if plus:
                # Of the two dots no reference is taken, which number 0 says.
                known = after > 2
                record = (self._entry(entry) if known else bytes(_ENTRY_OUT.size + _ATTR.size)) + (
                    record
                )
            room -= len(record)
            if room < 0:
                break
            found.append(record)
        return [b"".join(found)]

    def _entry(self, number: int) -> bytes:
        head = _ENTRY_OUT.pack(number, 0, _FOREVER, _FOREVER, 0, 0)
        return head + self._attributes(number)

    def _attributes(self, number: int) -> bytes:
        kind, size = self._tree.stat(number)
        mode = _MODES[kind] if number != ROOT else stat.S_IFDIR | 0o755
        times = (1, 1, 1, 0, 0, 0)
        # One link, of directories too: that tells programs not to count on the number.
        return _ATTR.pack(number, size, -(-size // 512), *times, mode, 1, *self._owner, 0, 4096, 0)
