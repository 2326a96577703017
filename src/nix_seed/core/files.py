"""Files written so that they are whole or not there, and files opened where others may write.

Writing goes by a temporary name, fsync and rename. Whatever lies in a directory that others may
have written is opened by ``open_regular``: a planted link, pipe or device is refused. In an
unpacked image or a store, links are followed only within it.
"""

import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from io import BufferedRandom, FileIO
from pathlib import Path
from typing import BinaryIO, Final

from nix_seed.core.errors import CouldNotCheck, InputError, NixSeedError, foreign


def explained(doing: str) -> AbstractContextManager[None]:
    """Map an ``OSError`` inside to ``CouldNotCheck``; *doing* begins the message."""
    return foreign(f"{doing} failed", OSError)


def open_regular(path: Path, flags: int = os.O_RDONLY) -> FileIO | BufferedRandom:
    """Open *path*, which others may have put there; ``CouldNotCheck`` unless it is a plain file.

    A link is not followed, a pipe is not waited for, and what has a second name is not written to.
    ``OSError`` for what cannot be opened otherwise.
    """
    always = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(path, flags & ~os.O_TRUNC | always, 0o644)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise _planted(path) from error
        raise
    found, reads = os.fstat(handle), flags & os.O_ACCMODE == os.O_RDONLY
    if not stat.S_ISREG(found.st_mode) or (found.st_nlink > 1 and not reads):
        os.close(handle)
        raise _planted(path)
    if flags & os.O_TRUNC:
        os.ftruncate(handle, 0)
    return open(handle, "rb", buffering=0) if reads else open(handle, "r+b")


def list_planted(top: Path, *below: str) -> tuple[str, ...]:
    """Return the names in *top*/*below*, which others may have put there; none where it is not.

    No link is followed below *top*: its names would be another directory's.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(top, flags)
    try:
        for name in below:
            above, handle = handle, -1
            try:
                handle = os.open(name, flags, dir_fd=above)
            finally:
                os.close(above)
        return tuple(os.listdir(handle))
    except FileNotFoundError:
        return ()
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise _planted(top.joinpath(*below), "directory") from error
        raise
    finally:
        if handle >= 0:
            os.close(handle)


def cache_directory() -> Path:
    """Return where layers and unpacked images are kept between runs."""
    return own_directory("NIX_SEED_CACHE", "XDG_CACHE_HOME", ".cache")


def own_directory(variable: str, base: str, usual: str) -> Path:
    """Return what *variable* names; or ours below what *base* names, or *usual* in the home."""
    if given := os.environ.get(variable):
        return Path(given)
    if place := os.environ.get(base):
        return Path(place, "nix-seed")
    if (found := home()) is None:
        raise InputError(
            f"user {os.geteuid()} has no home directory, and {variable} names no other",
            hint=f"set HOME, or {variable}, to a directory that this user may write to",
        )
    return found / usual / "nix-seed"


def home() -> Path | None:
    """Return the user's home directory; None of a user without a name or ``HOME``."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def open_lock(path: Path) -> FileIO | BufferedRandom:
    """Open the lock file *path*, made if absent, for ``flock``; nothing in it is changed."""
    return open_regular(path, os.O_RDWR | os.O_CREAT)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock file *path* alone; ``BlockingIOError`` where another does, unless *wait*.

    The kernel frees it when its holder dies, however it dies.
    """
    with open_lock(path) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


LARGEST_DOCUMENT: Final = 16 << 20
"""Bytes that no document of ours exceeds."""


def read_regular(path: Path, limit: int = LARGEST_DOCUMENT) -> bytes:
    """Return what the plain file *path* holds; ``CouldNotCheck`` for more than *limit* bytes."""
    with explained(f"reading {path}"), open_regular(path) as file:
        return _read(file, path, limit, CouldNotCheck)


def read_if_there(path: Path, limit: int = LARGEST_DOCUMENT) -> bytes | None:
    """Return what ``read_regular`` does, None where there is no such file."""
    try:
        return read_regular(path, limit)
    except CouldNotCheck as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return None
        raise


def read_given(path: Path, limit: int = LARGEST_DOCUMENT) -> bytes:
    """Return what lies at *path*, which a user or a repository names: links and pipes are read.

    ``InputError`` for more than *limit* bytes.
    """
    with explained(f"reading {path}"), path.open("rb", buffering=0) as file:
        return _read(file, path, limit, InputError)


def read_given_text(path: Path) -> str:
    """Return what ``read_given`` does, as text; ``InputError`` for what is not UTF-8."""
    try:
        return read_given(path).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8", hint="see that it is the file you mean") from error


def _read(
    file: BufferedRandom | FileIO, path: Path, limit: int, refused: type[NixSeedError]
) -> bytes:
    parts, left = [], limit + 1
    while left > 0 and (data := file.read(min(left, 1 << 20))):
        parts.append(data)
        left -= len(data)
    if left <= 0:
        raise refused(f"{path} is larger than any document of its kind: over {limit} bytes")
    return b"".join(parts)


def _planted(path: Path, kind: str = "plain file") -> CouldNotCheck:
    return CouldNotCheck(
        f"{path} is a link, a pipe or a device, and must be a {kind} of its own",
        hint="someone put it there: look at it, and remove it",
    )


class Unnamed:
    """A file being written under a temporary name, until ``keep``."""

    def __init__(self, handle: int, name: str) -> None:
        self._handle = handle
        self._name = name
        self.kept = False

    def write(self, data: bytes | memoryview, /) -> None:
        """Append all of *data*."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._handle, view) :]

    def copy(self, source: BinaryIO) -> None:
        """Append all of *source*, sharing its blocks if the file system can."""
        try:
            while os.copy_file_range(source.fileno(), self._handle, 1 << 30):
                pass
        except (AttributeError, OSError):
            # Not on macOS, nor between all kinds of file systems. Both offsets have moved alike.
            while chunk := source.read(1 << 20):
                self.write(chunk)

    def keep(self, path: Path, mode: int = 0o644) -> None:
        """Sync the file to disk and make it *path*, replacing what was there."""
        os.fchmod(self._handle, mode)
        os.fsync(self._handle)
        os.rename(self._name, path)
        self.kept = True


@contextmanager
def unnamed(directory: Path, doing: str) -> Iterator[Unnamed]:
    """Open a file in *directory* (made if absent) that is removed unless the block keeps it.

    Its name begins with a dot and ends in ``.tmp``. ``OSError`` inside becomes ``CouldNotCheck``.
    """
    with explained(doing):
        directory.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=directory)
        file = Unnamed(handle, name)
        try:
            yield file
        finally:
            os.close(handle)
            if not file.kept:
                with suppress(FileNotFoundError):
                    os.unlink(name)


def write_atomically(path: Path, data: bytes) -> None:
    """Make *path* hold *data*, or leave it as it was."""
    with unnamed(path.parent, f"writing {path}") as file:
        file.write(data)
        file.keep(path)


def files_below(top: str | Path, *, links: bool = False) -> Iterator[str]:
    """Yield each plain file at or below *top*, by name in each directory; *links*, too, if asked.

    Links are not followed. However deep, it takes no recursion, and what cannot be read is an
    ``OSError``, not passed over.
    """
    found = os.lstat(top)
    if stat.S_ISREG(found.st_mode) or (links and stat.S_ISLNK(found.st_mode)):
        yield os.fspath(top)
    waiting = [os.fspath(top)] if stat.S_ISDIR(found.st_mode) else []
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            here = sorted(entries, key=lambda entry: entry.name)
        for entry in here:
            if entry.is_file(follow_symlinks=False) or (links and entry.is_symlink()):
                yield entry.path
        below = [entry.path for entry in here if entry.is_dir(follow_symlinks=False)]
        waiting += reversed(below)


def write_new(
    path: Path, data: bytes, mode: int = 0o666, *, hint: str = "choose another name"
) -> None:
    """Write *data* where nothing is yet; ``InputError``, with *hint*, where something is.

    Directories on the way are made. A symlink that was laid there is not written through.
    """
    with explained(f"writing {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError as error:
            raise InputError(f"{path} exists already", hint=hint) from error
        with open(handle, "wb") as file:
            file.write(data)


def write_output(path: Path, data: bytes) -> None:
    """Write *data* where a user says, as atomically as that place allows.

    A link stays, and what it leads to is written; a device or a pipe is written to.
    ``write_atomically`` replaces all of these, as it should in directories of the product's own.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        with explained(f"writing {path}"), path.open("wb") as stream:
            stream.write(data)
        return
    write_atomically(path, data)


def place(source: Path, target: Path) -> None:
    """Make *target* hold what *source* does, sharing the disk's blocks where it can.

    A hard link if both lie on one file system, else a copy, a reflink where the kernel offers it.
    Only for files that are never written again.
    """
    doing = f"placing {target}"
    with explained(doing):
        target.parent.mkdir(parents=True, exist_ok=True)
        if _linked(source, target):
            return
    with unnamed(target.parent, doing) as file, open(source, "rb", buffering=0) as read:
        file.copy(read)
        file.keep(target, 0o444)


def _linked(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except FileExistsError:
        return os.path.samefile(source, target)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            return False
        raise
    return True


_MOST_LINKS = 40  # as Linux follows


def has_program(root: Path, path: str) -> bool:
    """Whether the absolute *path* is an executable file in *root*, symlinks followed as inside."""
    real = follow_links(root, path)
    if real is None:
        return False
    found = root / real.lstrip("/")
    return found.is_file() and bool(found.stat().st_mode & 0o111)


def follow_links(root: Path, path: str) -> str | None:
    """Return what the absolute *path* leads to in *root*, whether it is there or not.

    Absolute like *path* itself; None for links in a circle.
    """
    left = [part for part in path.split("/") if part][::-1]
    done: list[str] = []
    links = 0
    while left:
        part = left.pop()
        if part in ("", "."):
            continue
        if part == "..":
            del done[-1:]
            continue
        here = root.joinpath(*done, part)
        if here.is_symlink():
            links += 1
            if links > _MOST_LINKS:
                return None
            target = os.readlink(here)
            done = [] if target.startswith("/") else done
            left += target.split("/")[::-1]
        else:
            done.append(part)
    return "/" + "/".join(done)
