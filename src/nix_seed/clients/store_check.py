"""Is a store path on disk exactly what it should be: its NAR hash, permissions and times?"""

from __future__ import annotations

import os
import stat

from nix_seed.clients.safe_root import open_directory
from nix_seed.formats.nix import nar
from nix_seed.formats.nix.store_path import PathInfo
from nix_seed.rules.path_writer import NarHasher

__all__ = ["check_path"]

_READ = 1 << 20
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


def check_path(info: PathInfo, store: int, *, case_hack: bool) -> bool:
    """Whether *info*'s path in the directory open at *store* is canonical and has its NAR hash."""
    hasher = NarHasher()
    hasher.add(nar.MAGIC)
    try:
        if not _add(info.path.base_name.encode(), store, hasher, case_hack):
            return False
    except OSError:
        return False
    return hasher.hexdigest() == info.nar_hash.hex


def _add(name: bytes, at: int, hasher: NarHasher, case_hack: bool) -> bool:
    status = os.stat(name, dir_fd=at, follow_symlinks=False)
    mode = stat.S_IMODE(status.st_mode)
    if int(status.st_mtime) != 1 or status.st_uid != os.geteuid():
        return False
    if stat.S_ISLNK(status.st_mode):
        hasher.add(nar.symlink_head(os.readlink(name, dir_fd=at)) + nar.CLOSE)
        return True
    if stat.S_ISREG(status.st_mode) and mode in (0o444, 0o555):
        return _add_file(name, at, hasher, mode == 0o555)
    if not stat.S_ISDIR(status.st_mode) or mode != 0o555:
        return False
    hasher.add(nar.DIRECTORY)
    fd = open_directory(name, at)
    try:
        for plain, real in sorted(_entries(fd, case_hack)):
            hasher.add(nar.entry_head(plain))
            if not _add(real, fd, hasher, case_hack):
                return False
            hasher.add(nar.CLOSE)
    finally:
        os.close(fd)
    hasher.add(nar.CLOSE)
    return True


def _entries(fd: int, case_hack: bool) -> list[tuple[bytes, bytes]]:
    names = [os.fsencode(name) for name in os.listdir(fd)]
    return [(nar.strip_case_hack(name) if case_hack else name, name) for name in names]


def _add_file(name: bytes, at: int, hasher: NarHasher, executable: bool) -> bool:
    fd = os.open(name, _FILE, dir_fd=at)
    try:
        size = os.fstat(fd).st_size
        hasher.add(nar.file_head(size, executable))
        left = size
        while left and (data := os.read(fd, min(left, _READ))):
            hasher.add(data)
            left -= len(data)
        hasher.add(nar.padding(size) + nar.CLOSE)
        return left == 0
    finally:
        os.close(fd)
