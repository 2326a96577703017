"""Writes one store path beside its final name, proves its NAR hash, then moves it into place.

Entries must come in the order of a NAR, which is that of the project's layers, so the hash is
computed while they are written; in any other order the hash would not be the one wanted, and
nothing gets its name unless it is.

The database of valid paths below a root: read it, add to it, or begin it.

Where there is none yet, Nix need not be at hand: the database of exactly those paths is written,
the same bytes as in an image. An existing one is only ever changed by Nix itself.

Is a store path on disk exactly what it should be: its NAR hash, permissions and times?
"""

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from nix_seed.core.errors import CheckedFalse, CouldNotCheck, foreign
from nix_seed.core.files import explained, locked, open_lock, open_regular
from nix_seed.flake.nix import Nix
from nix_seed.formats.nix.addressed import AddressedFile
from nix_seed.formats.nix.database import DATABASE, SCHEMA_VERSION, build_database, read_valid_paths
from nix_seed.formats.nix.nar import NarHasher, strip_case_hack
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.image.read.safe_root import Descent, opened_directory, remove, write_all
from nix_seed.image.read.stream import TarPieces
from nix_seed.image.read.tar import Entry, EntryKind
from nix_seed.use.mount.owed import read_owed
from nix_seed.use.rules.written import prove_written

PARTIAL = b".seed-"
"""What the names of unfinished paths in the store begin with."""

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SMALL = 32 << 10
_TIME = (1, 1)
_CASE_HACK = b"~nix~case~hack~"


@contextlib.contextmanager
def tidied(directory: Path) -> Iterator[tuple[int, frozenset[str]]]:
    """Open a directory of store paths, without what a killed run left unfinished; list it."""
    with opened_directory(directory) as fd:
        _clean(fd)
        try:
            yield fd, frozenset(os.listdir(fd))
        finally:
            _clean(fd)


def _clean(store: int) -> None:
    for name in os.listdir(store):
        if os.fsencode(name).startswith(PARTIAL):
            remove(name, store)


class _Open:
    """A directory that is being filled: what it is below the path, and names taken in it."""

    __slots__ = ("below", "names")

    def __init__(self, below: bytes) -> None:
        self.below = below
        self.names: dict[bytes, int] = {}


class StorePathWriter:
    """Writes the path of *info* into the store open at *store*.

    With *case_hack*, names that differ from an earlier one of their directory only in case get
    Nix's ``~nix~case~hack~`` suffix. The umask must be 0. Call ``finish``, or ``abandon``.
    """

    def __init__(self, info: PathInfo, store: int, body: TarPieces, *, case_hack: bool) -> None:
        self._info = info
        self._store = store
        self._body = body
        self._case_hack = case_hack
        self._name = info.path.base_name.encode()
        self._nar = NarHasher()
        self._open: list[_Open] = []
        self._tree = Descent(store)
        self._begun = False

    def entry(self, below: bytes, entry: Entry) -> None:
        """Write one entry; *below* is its place under the store path, empty for the path itself."""
        if not below:
            if self._begun:
                raise self._refuse("is there twice")
            at, name, depth, base = self._store, PARTIAL + self._name, 0, b""
        else:
            parent, _, base = below.rpartition(b"/")
            at, name, depth = self._enter(parent, base)
        self._begun = True
        if entry.kind is EntryKind.DIRECTORY:
            self._nar.directory(depth, base)
            os.mkdir(name, 0o755, dir_fd=at)
            self._tree.enter(name)
            self._open.append(_Open(below))
        elif entry.kind is EntryKind.FILE:
            if entry.size > self._info.nar_size:
                raise self._refuse("has a file larger than all of it should be")
            self._nar.file(depth, base, entry.size, bool(entry.mode & 0o100))
            self._file(entry, name, at)
            self._nar.end_file(entry.size)
        elif entry.kind is EntryKind.SYMLINK:
            os.symlink(entry.target, name, dir_fd=at)
            os.utime(name, _TIME, dir_fd=at, follow_symlinks=False)
            self._nar.symlink(depth, base, entry.target)
        else:
            raise self._refuse("has a hard link, which layers of store paths do not have")

    def finish(self) -> None:
        """Check the NAR hash and give the path its name; ``CheckedFalse`` if it is another."""
        while self._open:
            self._leave()
        found = self._nar.finish()
        if found != self._info.nar_hash:
            raise self._refuse(
                f"has the NAR hash {found}, not {self._info.nar_hash} as its spec says"
            )
        place(self._store, PARTIAL + self._name, self._name)

    def abandon(self) -> None:
        """Remove what was written."""
        self._tree.close()
        remove(PARTIAL + self._name, self._store)

    def _enter(self, parent: bytes, base: bytes) -> tuple[int, bytes, int]:
        """Return the open directory *parent*, the name for *base* in it, and its depth."""
        while self._open and self._open[-1].below != parent:
            self._leave()
        if not self._open:
            raise self._refuse(f"has {parent + b'/' + base!r} outside of the order of a NAR")
        names, depth = self._open[-1].names, len(self._open)
        return self._tree.fd, self._hacked(names, base) if self._case_hack else base, depth

    def _hacked(self, names: dict[bytes, int], base: bytes) -> bytes:
        # As Nix does: by ASCII case alone, numbered in the order of the NAR.
        folded = base.lower()
        count = names.get(folded)
        names[folded] = 0 if count is None else count + 1
        return base if count is None else base + _CASE_HACK + b"%d" % (count + 1)

    def _file(self, entry: Entry, name: bytes, at: int) -> None:
        fd = os.open(name, _CREATE, 0o555 if entry.mode & 0o100 else 0o444, dir_fd=at)
        try:
            if entry.size <= _SMALL:
                data = self._body.read(entry.size)
                if len(data) != entry.size:
                    raise self._refuse("ends in the middle of a file")
                if data:
                    write_all(fd, data)
                    self._nar.add(data)
            else:
                for view in self._body.body(entry.size):
                    write_all(fd, view)
                    self._nar.add_now(view)
            os.utime(fd, _TIME)
        finally:
            os.close(fd)

    def _leave(self) -> None:
        self._open.pop()
        self._tree.leave(0o555)

    def _refuse(self, problem: str) -> CheckedFalse:
        return CheckedFalse(
            f"{self._info.path} {problem}",
            hint="the image is damaged or was altered: nothing of this path was kept",
        )


def place(store: int, partial: bytes, name: bytes) -> None:
    """Rename *partial* to *name* in the directory *store*, replacing what is not valid there."""
    try:
        os.stat(name, dir_fd=store, follow_symlinks=False)
    except FileNotFoundError:
        pass
    else:
        remove(name, store)
    os.rename(partial, name, src_dir_fd=store, dst_dir_fd=store)


_STATE = "nix/var/nix"


def _database(root: Path) -> Path:
    return root / DATABASE


@contextlib.contextmanager
def locked_store(root: Path) -> Iterator[None]:
    """Let one hydration at a time work on the store below *root*, which need not exist yet."""
    doing, hint = f"writing to {root / 'nix'}", "use sudo, or another store: --root DIR"
    with explained(doing), foreign(f"{doing} failed", PermissionError, hint=hint):
        (root / "nix/store").mkdir(parents=True, exist_ok=True)
        (root / _STATE / "db").mkdir(parents=True, exist_ok=True)
        with locked(root / _STATE / "nix-seed.lock"):
            yield


@contextlib.contextmanager
def uncollected(root: Path) -> Iterator[None]:
    """Keep Nix's garbage collector out of the store below *root*; one at work is waited for.

    It would remove paths that are in place and not registered yet, and valid ones that these refer
    to. Nix's collector takes this lock alone, and all else shares it, as is done here. Nothing may
    run meanwhile that could start a collection of its own and wait for it (``min-free``): no
    evaluation and no build. A collection that starts afterwards finds valid paths without roots.
    """
    with explained(f"writing to {root / _STATE}"), open_lock(root / _STATE / "gc.lock") as lock:
        os.chmod(lock.fileno(), 0o600)  # as Nix makes it
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def valid_paths(root: Path) -> frozenset[StorePath]:
    """Return every path that the database below *root* calls valid; none where there is none.

    What a mount showed and did not live to put there is not valid, whatever the database says.
    """
    path = _database(root)
    if not path.exists():
        return frozenset()
    try:
        found = read_valid_paths(path)
    except OSError as error:
        raise CouldNotCheck(
            str(error), hint="is it Nix's, and readable? Another root can be named with --root DIR"
        ) from error
    owed = read_owed(root)
    lacking = {path for path in owed if not os.path.lexists(root / str(path).lstrip("/"))}
    return frozenset(map(StorePath.parse, found)) - lacking


def add_new_files(
    root: Path, files: Mapping[str, bytes], paths: Collection[StorePath]
) -> tuple[AddressedFile, ...]:
    """Put those of *files* that their names prove into a store that has no database yet.

    They may refer to one another, and to the *paths* that it is to have. Return them, to be
    registered; none where there is a database.
    """
    if _database(root).exists():
        return ()
    proved = prove_written(files, paths)
    with opened_directory(root / "nix/store") as store:
        for file in proved:
            name = file.info.path.base_name
            remove(name, store)  # what a killed run left, whole or not
            fd = os.open(name, _CREATE, dir_fd=store)
            try:
                write_all(fd, file.data)
                os.fchmod(fd, 0o555 if file.executable else 0o444)
                os.utime(fd, _TIME)
            finally:
                os.close(fd)
    return proved


def register_paths(
    root: Path,
    infos: Sequence[PathInfo],
    nix: Callable[[], Nix],
    files: Sequence[AddressedFile] = (),
) -> None:
    """Make *infos* valid below *root*: they lie there, verified, and all they refer to is valid.

    *nix* gives the Nix that does it, and is asked only where there is a database already. *files*
    are for a new database alone.
    """
    if not infos:
        return
    # Nix holds this lock while it makes a database, so that no two begin one.
    big_lock = root / _STATE / "db/big-lock"
    with explained(f"writing to {root / _STATE}"), locked(big_lock):
        if not _database(root).exists():
            path = _database(root)
            partial = path.with_name(".db.sqlite.partial")
            with open_regular(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file:
                file.write(build_database(infos, files))
                file.flush()
                os.fsync(file.fileno())
            partial.rename(path)
            # After the database: alone, the schema's number would promise one that is not there.
            (path.parent / "schema").write_bytes(SCHEMA_VERSION)
            return
    nix().register(infos)


_READ = 1 << 20
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


def check_path(info: PathInfo, store: int, *, case_hack: bool) -> bool:
    """Whether *info*'s path in the directory open at *store* is canonical and has its NAR hash."""
    hasher, tree = NarHasher(), Descent(store)
    try:
        if not _add(info.path.base_name.encode(), tree, hasher, case_hack):
            return False
    except OSError:
        return False
    finally:
        tree.close()
    return hasher.finish() == info.nar_hash


def _add(path: bytes, tree: Descent, hasher: NarHasher, case_hack: bool) -> bool:
    # Without recursion: a path may have more directories inside one another than Python has calls.
    levels = [iter([(b"", path)])]
    while levels:
        plain, name = next(levels[-1], (b"", b""))
        if not name:
            levels.pop()
            if levels:
                tree.leave()
            continue
        kind = _add_node(name, tree.fd, hasher, (len(levels) - 1, plain))
        if kind is None:
            return False
        if stat.S_ISDIR(kind):
            tree.enter(name)
            names = [os.fsencode(name) for name in os.listdir(tree.fd)]
            levels.append(
                iter(
                    sorted([(strip_case_hack(name) if case_hack else name, name) for name in names])
                )
            )
    return True


def _add_node(name: bytes, at: int, hasher: NarHasher, place: tuple[int, bytes]) -> int | None:
    """Add *name*, which is at *place* in the NAR; return its kind, None if amiss."""
    status = os.stat(name, dir_fd=at, follow_symlinks=False)
    mode = stat.S_IMODE(status.st_mode)
    if int(status.st_mtime) != 1 or status.st_uid != os.geteuid():
        return None
    if stat.S_ISLNK(status.st_mode):
        hasher.symlink(*place, os.readlink(name, dir_fd=at))
    elif stat.S_ISREG(status.st_mode) and mode in (0o444, 0o555):
        if not _add_file(name, at, hasher, (*place, mode == 0o555)):
            return None
    elif stat.S_ISDIR(status.st_mode) and mode == 0o555:
        hasher.directory(*place)
    else:
        return None
    return status.st_mode


def _add_file(name: bytes, at: int, hasher: NarHasher, how: tuple[int, bytes, bool]) -> bool:
    depth, plain, executable = how
    fd = os.open(name, _FILE, dir_fd=at)
    try:
        left = size = os.fstat(fd).st_size
        hasher.file(depth, plain, size, executable)
        while left and (data := os.read(fd, min(left, _READ))):
            hasher.add(data)
            left -= len(data)
        hasher.end_file(size)
        return left == 0
    finally:
        os.close(fd)
