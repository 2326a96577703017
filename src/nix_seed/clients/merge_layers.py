"""Lay unpacked layers over one another, in order, by moving whole directories (layer.md).

Layers of a seed hold disjoint store paths, so a merge is one ``rename`` a store path. Whiteouts,
files that replace files, and hard links into lower layers are honoured as the specification says.
"""

from __future__ import annotations

import os
import stat

from nix_seed.clients.safe_root import apply, as_root, open_directory, remove, walk
from nix_seed.clients.unpack_layer import Unpacked, link
from nix_seed.ground.errors import CheckedFalse

__all__ = ["merge_layer"]


def merge_layer(root: int, layer: Unpacked, what: str) -> None:
    """Move everything *layer* brings onto the open directory *root*; its own tree is left empty."""
    for path in layer.opaque:
        _empty(root, path)
    for path in layer.whiteouts:
        _remove(root, path)
    source = open_directory(layer.directory)
    try:
        _Merge(layer, what).directory(source, root, b"")
    finally:
        os.close(source)
    for path, target in layer.links:
        _link(root, path, target, what)


class _Merge:
    def __init__(self, layer: Unpacked, what: str) -> None:
        self._implicit = layer.implicit if layer.explicit_root else layer.implicit | {b""}
        self._what = what

    def directory(self, source: int, target: int, path: bytes) -> None:
        """Move the children of *source* to *target*; keep the times and mode that should stay."""
        keep = os.fstat(target if path in self._implicit else source)
        if not as_root():
            os.fchmod(source, 0o700)
            os.fchmod(target, 0o700)
        for name in os.listdir(source):
            child = os.fsencode(name)
            self._child(child, source, target, path + b"/" + child if path else child)
        apply(target, stat.S_IMODE(keep.st_mode), int(keep.st_mtime))

    def _child(self, name: bytes, source: int, target: int, path: bytes) -> None:
        there = _lstat(name, target)
        here = os.stat(name, dir_fd=source, follow_symlinks=False)
        if there is not None and stat.S_ISDIR(here.st_mode):
            if stat.S_ISDIR(there.st_mode):
                self._both(name, source, target, path)
                return
            if path in self._implicit:
                raise CheckedFalse(
                    f"{self._what}: {path.decode('utf-8', 'backslashreplace')!r} is used as a "
                    "directory, and is a symlink or a file in a lower layer",
                    hint="The image was refused and nothing of it kept.",
                )
        if there is not None:
            remove(name, target)
        _move(name, source, target, here)

    def _both(self, name: bytes, source: int, target: int, path: bytes) -> None:
        below, onto = open_directory(name, source), open_directory(name, target)
        try:
            self.directory(below, onto, path)
        finally:
            os.close(below)
            os.close(onto)


def _move(name: bytes, source: int, target: int, here: os.stat_result) -> None:
    # Moving a directory rewrites its "..", which needs write permission on it (unless as root).
    locked = stat.S_ISDIR(here.st_mode) and not as_root() and not here.st_mode & stat.S_IWUSR
    if locked:
        os.chmod(name, 0o700, dir_fd=source)
    os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
    if locked:
        os.chmod(name, stat.S_IMODE(here.st_mode), dir_fd=target)


def _link(root: int, path: bytes, target: bytes, what: str) -> None:
    parent, _, base = path.rpartition(b"/")
    with walk(root, parent) as at:
        keep = os.fstat(at)
        if not as_root():
            os.fchmod(at, 0o700)
        remove(base, at)
        if not link(root, target, base, at):
            raise CheckedFalse(
                f"{what}: {path.decode('utf-8', 'backslashreplace')!r} is a hard link to "
                f"{target.decode('utf-8', 'backslashreplace')!r}, which is no file of the image",
                hint="The image was refused and nothing of it kept.",
            )
        apply(at, stat.S_IMODE(keep.st_mode), int(keep.st_mtime))


def _remove(root: int, path: bytes) -> None:
    parent, _, base = path.rpartition(b"/")
    try:
        with walk(root, parent) as at:
            keep = os.fstat(at)
            if not as_root():
                os.fchmod(at, 0o700)
            remove(base, at)
            apply(at, stat.S_IMODE(keep.st_mode), int(keep.st_mtime))
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
