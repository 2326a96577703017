"""Altered trees stay in the store when a flake was evaluated: they are deleted, several at once.

To delete takes the lock of the garbage collector and looks for everything that is in use. It
happens only where no other evaluation of this user's is at work, which may use the same tree.
"""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from nix_seed.core.errors import CouldNotCheck, InputError, NixFailed
from nix_seed.core.files import cache_directory, open_lock
from nix_seed.flake.nix import Nix
from nix_seed.formats.nix.store_path import StorePath

# As many trees as are left by four evaluations or so.
_MANY = 12
# Seconds: a garbage collection that is at work meanwhile takes them anyway, and may take hours.
_LONGEST = 5.0


@contextmanager
def leaving_few(nix: Nix) -> Iterator[set[StorePath]]:
    """Yield a set for what an evaluation leaves in the machine's store, and deletes some time."""
    left: set[StorePath] = set()
    place = cache_directory() / "altered-trees"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        file = open_lock(place)
    except (OSError, CouldNotCheck):
        yield left  # to keep a list is not worth a failure
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield left
        if nix.store is None and left:
            with suppress(OSError, NixFailed):
                _note(nix, file.fileno(), left)


def _note(nix: Nix, file: int, left: set[StorePath]) -> None:
    """Add what is *left* to the list in *file*; delete all of it if it is long."""
    os.lseek(file, 0, os.SEEK_END)
    os.write(file, "".join(f"{path}\n" for path in left).encode())
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    trees = set()
    for line in os.pread(file, os.fstat(file).st_size, 0).decode("ascii", "replace").split():
        with suppress(InputError):
            trees.add(StorePath.parse(line))
    if len(trees) >= _MANY:
        os.ftruncate(file, 0)
        stop = threading.Event()
        timer = threading.Timer(_LONGEST, stop.set)
        timer.start()
        try:
            replace(nix, stop=stop).delete(trees - nix.invalid_paths(trees))
        finally:
            timer.cancel()
