"""Write below one directory and nowhere else, whatever the names say.

Every directory is reached from the root's own file descriptor, one component at a time and never
through a symlink (``O_NOFOLLOW``), so a name can only lead to where it reads.
"""

import contextlib
import itertools
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nix_seed.core.errors import CheckedFalse

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_OPEN = 64  # descriptors of one descent


def as_root() -> bool:
    """Whether permission bits bind this process at all."""
    return os.geteuid() == 0


def open_directory(name: bytes | str | Path, at: int | None = None) -> int:
    """Open directory *name*, itself no symlink, relative to the descriptor *at*."""
    return os.open(name, _DIRECTORY, dir_fd=at)


@contextlib.contextmanager
def opened_directory(name: bytes | str | Path, at: int | None = None) -> Iterator[int]:
    """Open a directory as ``open_directory`` does, for the duration of the context."""
    fd = open_directory(name, at)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def walk(root: int, path: bytes) -> Iterator[int]:
    """Open directory *path* (relative, normal) below *root*, for the duration of the context."""
    current = os.dup(root)
    try:
        for part in path.split(b"/") if path else ():
            below = open_directory(part, current)
            os.close(current)
            current = below
        yield current
    finally:
        os.close(current)


def remove(name: bytes | str, at: int) -> None:
    """Remove *name* in the directory *at*, with all that is below it; absent is fine.

    However deep the tree is, it takes no recursion and three open directories: what lies deeper is
    moved up, into *name* itself, and is removed from there.
    """
    try:
        os.unlink(name, dir_fd=at)
        return
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        top = _open_freely(name, at)
    try:
        waiting = _directories_in(top)
        for number in itertools.count():
            if not waiting:
                break
            child = waiting.pop()
            fd = _open_freely(child, top)
            try:
                for below in _directories_in(fd):
                    waiting.append(_move_up(below, fd, top, number))
            finally:
                os.close(fd)
            os.rmdir(child, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=at)


def remove_tree(path: Path) -> None:
    """Remove *path* as ``remove`` does; what its parent's name leads to is believed."""
    above = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        remove(path.name, above)
    finally:
        os.close(above)


def _directories_in(fd: int) -> list[bytes]:
    """Remove all but the directories from the open directory *fd*; return these."""
    found = []
    for each in os.listdir(fd):
        name = os.fsencode(each)
        try:
            os.unlink(name, dir_fd=fd)
        except (IsADirectoryError, PermissionError):
            found.append(name)
    return found


def _move_up(name: bytes, at: int, top: int, number: int) -> bytes:
    """Move the directory *name* from *at* to *top*, under a name that is free there."""
    # Moving a directory rewrites its "..", which needs write permission on it (unless as root).
    os.close(_open_freely(name, at))
    for more in itertools.count():
        free = b".%d-%d" % (number, more)
        try:
            os.stat(free, dir_fd=top, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(name, free, src_dir_fd=at, dst_dir_fd=top)
            return free
    raise AssertionError("unreachable")


def _open_freely(name: bytes | str, at: int) -> int:
    """Open the directory *name*, and let its owner do all in it."""
    fd = _open_locked(name, at)
    if not as_root():
        os.fchmod(fd, 0o700)
    return fd


def _open_locked(name: bytes | str, at: int) -> int:
    try:
        return open_directory(name, at)
    except PermissionError:
        # Overlayfs leaves a directory that not even its owner may read. It is opened as a mere path
        # first, so that no symlink put in its place meanwhile is followed.
        place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=at)
        try:
            os.chmod(f"/proc/self/fd/{place}", 0o700)
        finally:
            os.close(place)
        return open_directory(name, at)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of *data* to the open file *fd*."""
    done = os.write(fd, data)
    while done < len(data):
        done += os.write(fd, memoryview(data)[done:])


def apply(fd: int, mode: int, mtime: int) -> None:
    """Give the open directory *fd* its final *mode* and *mtime* (seconds)."""
    os.fchmod(fd, mode)
    os.utime(fd, (mtime, mtime))


class Descent:
    """Directories open one inside the other; however many, only the deepest hold a descriptor.

    The others are found again by ``..``, so nobody else may move directories here meanwhile. The
    first, *root*, stays the caller's.
    """

    __slots__ = ("_fds",)

    def __init__(self, root: int) -> None:
        self._fds = [root]

    def __len__(self) -> int:
        return len(self._fds) - 1

    @property
    def fd(self) -> int:
        """The deepest directory."""
        return self._fds[-1]

    def enter(self, name: bytes) -> None:
        """Open the directory *name* in the deepest one."""
        self.push(open_directory(name, self.fd))

    def push(self, fd: int) -> None:
        """Go on from *fd*, which lies in the deepest one."""
        self._fds.append(fd)
        far = len(self._fds) - _MOST_OPEN
        if far > 0 and self._fds[far] >= 0:
            os.close(self._fds[far])
            self._fds[far] = -1

    def leave(self, mode: int | None = None, mtime: int = 1) -> None:
        """Close the deepest directory, with a *mode*, which may lock it, and a time if given."""
        fd = self._fds.pop()
        if self._fds[-1] < 0:
            self._fds[-1] = os.open("..", _DIRECTORY, dir_fd=fd)
        try:
            if mode is not None:
                apply(fd, mode, mtime)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Close all but the root, leaving them as they are."""
        while len(self._fds) > 1:
            fd = self._fds.pop()
            if fd >= 0:
                os.close(fd)


@contextlib.contextmanager
def scratch_directory(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """Yield a new directory and remove it afterwards, whatever was put there, however deep."""
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        yield directory
    finally:
        remove_tree(directory)


class DirectoryWriter:
    """Finds and makes parent directories below *root*, keeping the last path's descriptors open.

    Tars are sorted, so nearly every entry lies in the directory that the last one was in. Modes
    and times are applied when a directory is left: a 0555 directory could not be filled otherwise.
    """

    def __init__(self, root: int, label: str) -> None:
        self._label = label
        self._stack = [b""]
        self._open_ones = Descent(root)
        self._wanted: dict[bytes, tuple[int, int]] = {}
        self.implicit: set[bytes] = set()

    @property
    def explicit(self) -> dict[bytes, tuple[int, int]]:
        """Mode and mtime of every directory that had an entry of its own."""
        return self._wanted

    def enter(self, path: bytes) -> int:
        """Return a descriptor of directory *path*, making what is missing on the way."""
        if self._stack[-1] == path:
            return self._open_ones.fd
        while not _holds(self._stack[-1], path):
            self._leave()
        top = self._stack[-1]
        for part in path[len(top) + 1 if top else 0 :].split(b"/") if path != top else ():
            top = top + b"/" + part if top else part
            self._open_ones.push(self._open(part, self._open_ones.fd, top))
            self._stack.append(top)
        return self._open_ones.fd

    def directory(self, path: bytes, mode: int, mtime: int) -> None:
        """Make directory *path*; a second entry for it replaces the first's mode and time."""
        self.enter(path)
        self._wanted[path] = mode, mtime
        self.implicit.discard(path)

    def close(self) -> None:
        """Leave every directory (the root stays open)."""
        while len(self._stack) > 1:
            self._leave()
        if b"" in self._wanted:
            apply(self._open_ones.fd, *self._wanted[b""])

    def abandon(self) -> None:
        """Close what is open, after an error."""
        self._open_ones.close()

    def _open(self, part: bytes, parent: int, path: bytes) -> int:
        try:
            os.mkdir(part, 0o755, dir_fd=parent)
            self.implicit.add(path)
        except FileExistsError:
            pass
        try:
            fd = open_directory(part, parent)
        except OSError as error:
            raise CheckedFalse(
                f"{self._label}: {path.decode('utf-8', 'backslashreplace')!r} is used as a "
                "directory, and is a symlink or a file in the same layer",
                hint="The layer was refused and nothing of it kept.",
            ) from error
        if not as_root() and path in self._wanted:
            os.fchmod(fd, stat.S_IMODE(os.fstat(fd).st_mode) | 0o700)
        return fd

    def _leave(self) -> None:
        self._open_ones.leave(*self._wanted.get(self._stack.pop(), (0o755, 1)))


def _holds(directory: bytes, path: bytes) -> bool:
    return not directory or path == directory or path.startswith(directory + b"/")
