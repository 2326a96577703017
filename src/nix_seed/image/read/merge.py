"""Lay unpacked layers over one another, in order, by moving whole directories (layer.md).

Layers of a seed hold disjoint store paths, so a merge is one ``rename`` a store path. Whiteouts,
files that replace files, and hard links into lower layers are honoured as the specification says.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from nix_seed.core.errors import CheckedFalse
from nix_seed.core.values import dataclass
from nix_seed.image.read.safe_root import Descent, apply, as_root, opened_directory, remove, walk


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What a layer asks of the layers below it, besides the files it brings.

    *whiteouts* are paths to remove below, *opaque* directories to empty below, *links* hard links
    (path, target) into lower layers, *implicit* directories that had no entry of their own.
    """

    directory: Path
    entries: int
    whiteouts: tuple[bytes, ...]
    opaque: tuple[bytes, ...]
    links: tuple[tuple[bytes, bytes], ...]
    implicit: frozenset[bytes]
    explicit_root: bool


def link(root: int, target: bytes, base: bytes, at: int) -> bool:
    """Hard-link *base* in *at* to *target* below *root*; whether the target is there."""
    parent, _, name = target.rpartition(b"/")
    try:
        with walk(root, parent) as source:
            os.link(name, base, src_dir_fd=source, dst_dir_fd=at, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:
        # A symlink on the way (ELOOP) and a directory as target (EPERM) come here, too: the layers
        # below cannot have the target either, and the merge then refuses it by name.
        return False
    return True


def merge_layer(root: int, layer: Unpacked, label: str) -> None:
    """Move everything *layer* brings onto the open directory *root*; its own tree is left empty."""
    for path in layer.opaque:
        _empty(root, path)
    for path in layer.whiteouts:
        _whiteout(root, path)
    with opened_directory(layer.directory) as source:
        _Merge(layer, label).run(source, root)
    for path, target in layer.links:
        _link(root, path, target, label)


class _Merge:
    def __init__(self, layer: Unpacked, label: str) -> None:
        self._implicit = layer.implicit if layer.explicit_root else layer.implicit | {b""}
        self._label = label

    def run(self, source: int, target: int) -> None:
        """Move the children of *source* to *target*, without recursion: trees may be deep."""
        here, there = Descent(source), Descent(target)
        levels = [self._level(source, target, b"")]
        try:
            while levels:
                level = levels[-1]
                name = next(level.names, None)
                if name is None:
                    levels.pop()
                    if not levels:
                        apply(there.fd, level.mode, level.mtime)
                        return
                    here.leave()
                    there.leave(level.mode, level.mtime)
                    continue
                path = level.path + b"/" + name if level.path else name
                if self._child(name, here.fd, there.fd, path):
                    here.enter(name)
                    there.enter(name)
                    levels.append(self._level(here.fd, there.fd, path))
        finally:
            here.close()
            there.close()

    def _level(self, source: int, target: int, path: bytes) -> _Level:
        keep = os.fstat(target if path in self._implicit else source)
        if not as_root():
            os.fchmod(source, 0o700)
            os.fchmod(target, 0o700)
        names = map(os.fsencode, os.listdir(source))
        return _Level(path, stat.S_IMODE(keep.st_mode), int(keep.st_mtime), names)

    def _child(self, name: bytes, source: int, target: int, path: bytes) -> bool:
        """Move *name*, or say that it is a directory on both sides, to be gone through."""
        there = _lstat(name, target)
        here = os.stat(name, dir_fd=source, follow_symlinks=False)
        if there is not None and stat.S_ISDIR(here.st_mode):
            if stat.S_ISDIR(there.st_mode):
                return True
            if path in self._implicit:
                raise CheckedFalse(
                    f"{self._label}: {path.decode('utf-8', 'backslashreplace')!r} is used as a "
                    "directory, and is a symlink or a file in a lower layer",
                    hint="The image was refused and nothing of it kept.",
                )
        if there is not None:
            remove(name, target)
        _move(name, source, target, here)
        return False


@dataclass(frozen=True, slots=True)
class _Level:
    """One directory, in the layer and in the root: the *mode* and *mtime* it shall have."""

    path: bytes
    mode: int
    mtime: int
    names: Iterator[bytes]


def _move(name: bytes, source: int, target: int, here: os.stat_result) -> None:
    # Moving a directory rewrites its "..", which needs write permission on it (unless as root).
    locked = stat.S_ISDIR(here.st_mode) and not as_root() and not here.st_mode & stat.S_IWUSR
    if locked:
        os.chmod(name, 0o700, dir_fd=source)
    os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
    if locked:
        os.chmod(name, stat.S_IMODE(here.st_mode), dir_fd=target)


@contextlib.contextmanager
def _changing(root: int, path: bytes) -> Iterator[int]:
    """Open the directory *path* to change what is in it; its own mode and time stay."""
    with walk(root, path) as at:
        keep = os.fstat(at)
        if not as_root():
            os.fchmod(at, 0o700)
        yield at
        apply(at, stat.S_IMODE(keep.st_mode), int(keep.st_mtime))


def _link(root: int, path: bytes, target: bytes, label: str) -> None:
    parent, _, base = path.rpartition(b"/")
    with _changing(root, parent) as at:
        remove(base, at)
        if not link(root, target, base, at):
            raise CheckedFalse(
                f"{label}: {path.decode('utf-8', 'backslashreplace')!r} is a hard link to "
                f"{target.decode('utf-8', 'backslashreplace')!r}, which is no file of the image",
                hint="The image was refused and nothing of it kept.",
            )


def _whiteout(root: int, path: bytes) -> None:
    parent, _, base = path.rpartition(b"/")
    try:
        with _changing(root, parent) as at:
            remove(base, at)
    except OSError:
        return  # nothing of that name below: a whiteout may name what is not there


def _empty(root: int, path: bytes) -> None:
    try:
        with walk(root, path) as at:
            if not as_root():
                os.fchmod(at, 0o700)
            for name in os.listdir(at):
                remove(os.fsencode(name), at)
    except (FileNotFoundError, NotADirectoryError):
        return


def _lstat(name: bytes, at: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return None
