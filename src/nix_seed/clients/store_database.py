"""The database of valid paths below a root: read it, add to it, or begin it.

Where there is none yet, Nix need not be at hand: the database of exactly those paths is written,
the same bytes as in an image. An existing one is only ever changed by Nix itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from nix_seed.clients.files import explained
from nix_seed.clients.nix import Nix
from nix_seed.formats.nix.database import SCHEMA_VERSION, build_database
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.ground.errors import CouldNotCheck

__all__ = ["locked_store", "register_paths", "uncollected", "valid_paths"]

_STATE = "nix/var/nix"


def _database(root: Path) -> Path:
    return root / _STATE / "db/db.sqlite"


@contextlib.contextmanager
def locked_store(root: Path) -> Iterator[None]:
    """Let one hydration at a time work on the store below *root*, which need not exist yet."""
    with explained(f"writing to {root / 'nix'}"):
        (root / "nix/store").mkdir(parents=True, exist_ok=True)
        (root / _STATE / "db").mkdir(parents=True, exist_ok=True)
        with (root / _STATE / "nix-seed.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


@contextlib.contextmanager
def uncollected(root: Path) -> Iterator[None]:
    """Keep Nix's garbage collector out of the store below *root*; one at work is waited for.

    It would remove paths that are in place and not registered yet, and valid ones that these refer
    to. Nix's collector takes this lock alone, and all else shares it, as is done here. Nothing may
    run meanwhile that could start a collection of its own and wait for it (``min-free``): no
    evaluation and no build. A collection that starts afterwards finds valid paths without roots.
    """
    with explained(f"writing to {root / _STATE}"), (root / _STATE / "gc.lock").open("a") as lock:
        os.chmod(lock.fileno(), 0o600)  # as Nix makes it
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def valid_paths(root: Path) -> frozenset[StorePath]:
    """Return every path that the database below *root* calls valid; none where there is none."""
    path = _database(root)
    if not path.exists():
        return frozenset()
    try:
        with contextlib.closing(sqlite3.connect(f"file:{_quoted(path)}?mode=ro", uri=True)) as db:
            rows = db.execute("SELECT path FROM ValidPaths").fetchall()
    except sqlite3.Error as error:
        raise CouldNotCheck(
            f"cannot read Nix's database {path}: {error}",
            hint="is it Nix's, and readable? Another root can be named with --root DIR",
        ) from error
    return frozenset(StorePath.parse(row[0]) for row in rows)


def register_paths(root: Path, infos: Sequence[PathInfo], nix: Callable[[], Nix]) -> None:
    """Make *infos* valid below *root*: they lie there, verified, and all they refer to is valid.

    *nix* gives the Nix that does it, and is asked only where there is a database already.
    """
    if not infos:
        return
    # Nix holds this lock while it makes a database, so that no two begin one.
    big_lock = root / _STATE / "db/big-lock"
    with explained(f"writing to {root / _STATE}"), big_lock.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _database(root).exists():
            _begin_database(root, infos)
            return
    nix().register(infos)


def _begin_database(root: Path, infos: Collection[PathInfo]) -> None:
    path = _database(root)
    partial = path.with_name(".db.sqlite.partial")
    with partial.open("wb") as file:
        file.write(build_database(infos))
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    # After the database: alone, the schema's number would promise one that is not there.
    (path.parent / "schema").write_bytes(SCHEMA_VERSION)


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
