"""Reading store paths from disk: names as bytes, no symlink followed, an order of our own."""

import errno
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError, NixSeedError
from nix_seed.formats.nix.nar import strip_case_hack
from nix_seed.formats.nix.store_path import STORE_DIR, StorePath
from nix_seed.image.rules.layer import DIRECTORY, FILE, SYMLINK, Node


class StoreFiles:
    """The store whose ``/nix/store/x`` lies at ``root/nix/store/x``: a ``StoreReader``.

    *case_hack* strips ``~nix~case~hack~`` suffixes from names, which Nix does on macOS alone.
    """

    def __init__(self, root: Path = Path("/"), *, case_hack: bool = sys.platform == "darwin"):
        self._store = os.fsencode(root / STORE_DIR.removeprefix("/"))
        self._case_hack = case_hack

    def walk(self, path: StorePath) -> Iterator[Node]:
        """Yield the nodes of *path*, depth first, entries by the bytes of their names."""
        source = os.path.join(self._store, path.base_name.encode())
        try:
            root = _node(source, b"", b"", 0, os.lstat(source))
            yield root
            # Iterators stacked by hand: a chain of generators costs each node its depth.
            stack = [self._entries(root)] if root.kind == DIRECTORY else []
            while stack:
                node = next(stack[-1], None)
                if node is None:
                    stack.pop()
                    continue
                yield node
                if node.kind == DIRECTORY:
                    stack.append(self._entries(node))
        except OSError as error:
            raise _trouble(path, error) from error

    def open(self, path: StorePath, node: Node) -> int:
        """Open a file of *path*."""
        try:
            return os.open(node.source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise _trouble(path, error) from error

    def read(self, handle: int, view: memoryview) -> int:
        """Fill *view* from its front; 0 at the end of the file."""
        try:
            return os.readv(handle, (view,))
        except OSError as error:
            raise CouldNotCheck(f"reading a file of the store failed: {error.strerror}") from error

    def close(self, handle: int) -> None:
        """Close the file."""
        os.close(handle)

    def _entries(self, directory: Node) -> Iterator[Node]:
        with os.scandir(directory.source) as scan:
            found = {entry.name: entry for entry in scan}
        depth, below = directory.depth + 1, directory.below + b"/"
        if self._case_hack:
            found = _plain_names(directory, found)
        for name in sorted(found):
            entry = found[name]
            if entry.is_dir(follow_symlinks=False):
                yield Node(DIRECTORY, below + name, name, depth, source=entry.path)
            else:
                status = entry.stat(follow_symlinks=False)
                yield _node(entry.path, below + name, name, depth, status)


def _plain_names(
    directory: Node, found: dict[bytes, os.DirEntry[bytes]]
) -> dict[bytes, os.DirEntry[bytes]]:
    plain = {strip_case_hack(name): entry for name, entry in found.items()}
    if len(plain) != len(found):
        raise InputError(
            f"{os.fsdecode(directory.source)} holds two files with one name"
            " once Nix's case hack is undone"
        )
    return plain


def _node(source: bytes, below: bytes, name: bytes, depth: int, status: os.stat_result) -> Node:
    mode = status.st_mode
    if stat.S_ISREG(mode):
        executable = bool(mode & stat.S_IXUSR)
        return Node(FILE, below, name, depth, status.st_size, executable, source=source)
    if stat.S_ISLNK(mode):
        return Node(SYMLINK, below, name, depth, target=os.readlink(source), source=source)
    if stat.S_ISDIR(mode):
        return Node(DIRECTORY, below, name, depth, source=source)
    raise InputError(f"{os.fsdecode(source)} is no file, directory or symlink; no store holds such")


def _trouble(path: StorePath, error: OSError) -> NixSeedError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        return CheckedFalse(
            f"{path} is gone, or part of it: {error.strerror}: {_name(error)}",
            hint="the store changed while it was read (a garbage collection?): run this again",
        )
    return CouldNotCheck(f"{path} cannot be read: {error.strerror}: {_name(error)}")


def _name(error: OSError) -> str:
    name = error.filename
    return os.fsdecode(name) if isinstance(name, bytes | str) else "an open file"
