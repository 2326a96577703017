"""Unpack an image into a root directory, verified, in parallel, all or nothing.

``unpack(image, root)`` makes a root; ``unpacked(image, cache)`` does so once per manifest digest.
Layers are unpacked side by side into directories of their own while their digests are computed,
and only when every digest and diffID has proved right are they merged and the result renamed into
place. A killed run leaves a ``.partial`` directory, which the next run removes.
"""

import contextlib
import grp
import os
import pwd
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.core.files import locked, read_if_there, write_atomically
from nix_seed.core.processes import cores, forked_pool, may_fork
from nix_seed.core.values import dataclass
from nix_seed.image.read.merge import Unpacked, link, merge_layer
from nix_seed.image.read.safe_root import DirectoryWriter, opened_directory, remove_tree, write_all
from nix_seed.image.read.stream import Allowance, TarPieces
from nix_seed.image.read.tar import Entry, EntryKind, entries_below, read_entries
from nix_seed.registry.layout import Image
from nix_seed.registry.layout_store import LayoutStore

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"


def unpack_layer(
    stream: TarPieces,
    directory: Path,
    label: str,
    limit: int,
    only: tuple[bytes, int] | None = None,
) -> Unpacked:
    """Write the tar *stream* into the empty *directory*; at most *limit* entries.

    *only* names what to write, all below that name, and how many bytes its files may have.

    Ownership is that of the caller: layers of the project know only uid 0, and a build image needs
    no other. Raises ``CheckedFalse`` for what a layer may not hold.
    """
    entries = read_entries(stream, label)
    if only is not None:
        entries = entries_below(entries, *only, label)
    with opened_directory(directory) as root:
        return _Layer(root, stream, label).run(entries, directory, limit)


class _Layer:
    def __init__(self, root: int, stream: TarPieces, label: str) -> None:
        self._root = root
        self._stream = stream
        self._label = label
        self._directories = DirectoryWriter(root, label)
        self._mask = _umask()
        self._whiteouts: list[bytes] = []
        self._opaque: list[bytes] = []
        self._links: list[tuple[bytes, bytes]] = []

    def run(self, entries: Iterator[Entry], directory: Path, limit: int) -> Unpacked:
        count = 0
        try:
            for entry in entries:
                count += 1
                if count > limit:
                    raise CheckedFalse(f"{self._label}: has more than {limit} entries")
                self._write(entry)
            self._directories.close()
        finally:
            self._directories.abandon()
        return Unpacked(
            directory,
            count,
            tuple(self._whiteouts),
            tuple(self._opaque),
            tuple(self._links),
            frozenset(self._directories.implicit),
            b"" in self._directories.explicit,
        )

    def _write(self, entry: Entry) -> None:
        if entry.kind is EntryKind.DIRECTORY:
            self._directories.directory(entry.name, entry.mode, _time(entry.mtime))
            return
        parent, _, base = entry.name.rpartition(b"/")
        if not base:
            raise CheckedFalse(f"{self._label}: replaces its root by something else")
        if base.startswith(_WHITEOUT):
            self._white_out(parent, base)
            return
        at = self._directories.enter(parent)
        try:
            self._make(entry, base, at)
        except FileExistsError:
            shown = entry.name.decode("utf-8", "backslashreplace")
            raise CheckedFalse(f"{self._label}: {shown!r} is there twice") from None

    def _make(self, entry: Entry, base: bytes, at: int) -> None:
        if entry.kind is EntryKind.FILE:
            fd = os.open(base, _CREATE, entry.mode, dir_fd=at)
            try:
                for piece in self._stream.body(entry.size):
                    write_all(fd, piece)
                if entry.mode & (self._mask | 0o1000):
                    os.fchmod(fd, entry.mode)
                os.utime(fd, (_time(entry.mtime),) * 2)
            finally:
                os.close(fd)
        elif entry.kind is EntryKind.SYMLINK:
            os.symlink(entry.target, base, dir_fd=at)
            os.utime(base, (_time(entry.mtime),) * 2, dir_fd=at, follow_symlinks=False)
        elif not link(self._root, entry.target, base, at):
            self._links.append((entry.name, entry.target))

    def _white_out(self, parent: bytes, base: bytes) -> None:
        if base == _OPAQUE:
            self._opaque.append(parent)
            return
        name = base[len(_WHITEOUT) :]
        if name in (b"", b".", b"..") or name.startswith(_WHITEOUT):
            raise CheckedFalse(f"{self._label}: has the whiteout {base!r}, which names no file")
        self._whiteouts.append(parent + b"/" + name if parent else name)


def _time(mtime: int) -> int:
    return min(max(mtime, 0), 1 << 33)


def _umask() -> int:
    # Read, not set and set back: the umask is the whole process's, and threads are at work.
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o777


@dataclass(frozen=True, slots=True)
class Limits:
    """What an image may ask for: *total* bytes unpacked, *entries* per layer; and how many
    *workers* to unpack with (0: one a core).

    The free space of the disk is a limit as well, whatever *total* says.
    """

    total: int = 256 << 30
    entries: int = 8_000_000
    workers: int = 0


def unpacked(image: Image, cache: Path, limits: Limits = Limits()) -> Path:
    """Return the root of *image* in *cache*, unpacking it first unless this machine did so before.

    The root is shared and must never be written to. Two processes that ask at once unpack once.
    """
    root = cache / f"sha256-{image.digest.hex}"
    with _as_could_not_check(f"keep unpacked images in {cache}"):
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        check_private(cache)
        if not _use(root):
            with locked(cache / f".lock-{image.digest.hex}"):
                if not _use(root):
                    _remove_unproved(root)
                    unpack(image, root, limits)
                    # A mode that the image gives its root must not let others write here.
                    root.chmod(stat.S_IMODE(root.stat().st_mode) & ~0o022)
                    write_atomically(_seal(root), _mark(root))
    return root


def _use(root: Path) -> bool:
    """Whether *root* is the very directory that was unpacked and proved here; note its use.

    A copy is another directory: a cache that a CI service restored may come from anyone.
    """
    seal = _seal(root)
    if not os.path.lexists(root) or read_if_there(seal) != _mark(root):
        return False
    check_private(root, parents=False)
    os.utime(seal)  # the time of last use, by which old ones are cleared away
    return True


def _seal(root: Path) -> Path:
    return root.with_name(f".seal-{root.name}")


def _mark(root: Path) -> bytes:
    # Nobody can choose either; device numbers change when a machine starts again.
    found = root.lstat()
    return b"%d %d\n" % (found.st_ino, found.st_ctime_ns)


def _remove_unproved(root: Path) -> None:
    """Make way for *root*; what others put there is refused, and left for the user to look at."""
    if not os.path.lexists(root):
        return
    check_private(root, parents=False)
    if _is_mounted(root):
        raise CouldNotCheck(
            f"{root} was not unpacked by this version, and is in use",
            hint="wait until the runs that use it have ended",
        )
    _remove(root)


def check_private(directory: Path, *, parents: bool = True) -> None:
    """Raise ``CouldNotCheck`` for a directory that others can write to: what it holds is executed.

    With *parents*, those as well in which others could put another in its place.
    """
    _check(directory, directory.lstat(), own=True)
    for above in directory.resolve().parents if parents else ():
        _check(above, above.lstat(), own=False)


def private_cache(usual: Path) -> Path:
    """Return *usual* or, where others can write to it or on the way there, one of this user's own.

    A job container's root, for one, has another user's directory for its HOME.
    """
    there = next(each for each in (usual, *usual.parents) if os.path.lexists(each))
    try:
        for place in (there, *there.resolve().parents):
            _check(place, place.lstat(), own=place == usual)
    except CouldNotCheck:
        if os.geteuid() == 0:
            return Path("/var/cache/nix-seed")
        return Path(tempfile.gettempdir(), f"nix-seed-{os.geteuid()}")
    return usual


def _check(directory: Path, found: os.stat_result, *, own: bool) -> None:
    problem = None
    writers = stat.S_IWOTH if _is_own_group(found) else stat.S_IWOTH | stat.S_IWGRP
    sticky = not own and found.st_mode & stat.S_ISVTX
    if not stat.S_ISDIR(found.st_mode):
        problem = "is no directory, but a link or a file"
    elif found.st_uid not in ({os.geteuid()} if own else {os.geteuid(), 0}):
        problem = f"belongs to the user {found.st_uid}"
    elif found.st_mode & writers and not sticky:
        problem = "can be written to by others"
    if problem is not None:
        raise CouldNotCheck(
            f"{directory}, where unpacked images are kept or on the way there, {problem}",
            hint="What lies there was not verified. Remove it, or point NIX_SEED_CACHE at a"
            " directory of your own.",
        )


def _is_own_group(found: os.stat_result) -> bool:
    """Whether the group is this user's alone, as many systems make one for each user."""
    if not found.st_mode & stat.S_IWGRP or found.st_gid != os.getegid():
        return False
    try:
        named = set(grp.getgrgid(found.st_gid).gr_mem)
    except KeyError:
        named = set()
    users = pwd.getpwall()
    named |= {user.pw_name for user in users if user.pw_gid == found.st_gid}
    return named <= {user.pw_name for user in users if user.pw_uid == os.geteuid()}


def clear_unpacked(cache: Path, before: float, *, dry: bool = False) -> tuple[str, ...]:
    """Remove roots last used before the time *before*; return their names. A running one stays.

    *dry* removes nothing.
    """
    removed = []
    with _as_could_not_check(f"clear unpacked images in {cache}"):
        for root in sorted(cache.glob("sha256-*")) if cache.is_dir() else []:
            if _last_use(root) < before and not _is_mounted(root):
                if not dry:
                    _remove(root)
                    _seal(root).unlink(missing_ok=True)
                removed.append(root.name)
    return tuple(removed)


def _last_use(root: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return _seal(root).lstat().st_mtime
    return root.lstat().st_mtime


def _is_mounted(root: Path) -> bool:
    """Whether some process has a writable layer above *root*: its mounts name it."""
    for table in Path("/proc").glob("[0-9]*/mounts"):
        with contextlib.suppress(OSError):
            if root.name in table.read_text(errors="replace"):
                return True
    return False


def unpack(image: Image, root: Path, limits: Limits = Limits()) -> None:
    """Unpack *image* as the new directory *root*; ``InputError`` if it already exists.

    Raises ``CheckedFalse`` where a digest, a diffID or an entry is wrong; nothing is left then.
    """
    if root.exists() or root.is_symlink():
        raise InputError(f"{root} exists already", hint="Name a directory that does not exist.")
    partial = root.with_name(f".partial-{root.name}")
    with _as_could_not_check(f"unpack {image.name} into {root.parent}"):
        _remove(partial)
        partial.mkdir(parents=True, mode=0o755)
        try:
            layers = _unpack_layers(image, partial, limits)
            _merge(layers, partial / "root", image)
            (partial / "root").rename(root)
        finally:
            _remove(partial)


@dataclass(frozen=True, slots=True)
class _Job:
    """Everything a worker needs to unpack any layer of *image*."""

    image: Image
    partial: Path
    allowance: Allowance
    entries: int

    def layer(self, position: int) -> Unpacked:
        layer, diff_id = self.image.layers[position]
        label = f"{self.image.name}, layer {position + 1} of {len(self.image.layers)}"
        directory = self.partial / str(position)
        directory.mkdir(mode=0o755)
        chunks = LayoutStore(self.image.layout).open_blob(layer)
        with TarPieces(chunks, layer.media_type, self.allowance, label, 0, hashed=True) as pieces:
            unpacked = unpack_layer(pieces, directory, label, self.entries)
            found = pieces.diff_id()
        if found != diff_id:
            raise CheckedFalse(
                f"{label}: diffID is {found}, not {diff_id} as the configuration says",
                hint="The image is damaged or was altered: nothing of it was kept. Get it again.",
            )
        return unpacked


_job: _Job | None = None


def _begin(job: _Job) -> None:
    global _job  # noqa: PLW0603
    _job = job


def _layer(position: int) -> Unpacked:
    assert _job is not None
    return _job.layer(position)


def _unpack_layers(image: Image, partial: Path, limits: Limits) -> list[Unpacked]:
    space = os.statvfs(partial)
    allowance = Allowance(limits.total, space.f_bavail * space.f_frsize, partial.parent)
    job = _Job(image, partial, allowance, limits.entries)
    count = len(image.layers)
    workers = min(limits.workers or cores(), count)
    # Making small files is bound by the interpreter's lock, so cores mean processes, not threads.
    # Only a single-threaded process may fork safely; any other unpacks layer by layer.
    if workers < 2 or not may_fork():
        return [job.layer(position) for position in range(count)]
    # The largest first: a big layer begun last would leave the other cores idle at the end.
    order = sorted(range(count), key=lambda at: -image.layers[at][0].size)
    # Only here: who finds the image unpacked should not wait for it.
    from concurrent.futures import FIRST_EXCEPTION, wait

    with forked_pool(workers, lambda: _begin(job)) as pool, pool:
        tasks = {at: pool.submit(_layer, at) for at in order}
        done, _ = wait(tasks.values(), return_when=FIRST_EXCEPTION)
        pool.shutdown(wait=True, cancel_futures=True)
    for task in done:
        task.result()
    return [tasks[at].result() for at in range(count)]


def _merge(layers: list[Unpacked], root: Path, image: Image) -> None:
    root.mkdir(mode=0o755)
    with opened_directory(root) as fd:
        for position, layer in enumerate(layers):
            merge_layer(fd, layer, f"{image.name}, layer {position + 1} of {len(layers)}")
    # A mode the image gives its root must not keep the owner from renaming it.
    root.chmod(stat.S_IMODE(root.stat().st_mode) | 0o700)


def clear(path: Path) -> None:
    """Remove *path* and all below it, if it is there."""
    with _as_could_not_check(f"remove {path}"):
        _remove(path)


def _remove(path: Path) -> None:
    if path.parent.is_dir():
        remove_tree(path)


@contextlib.contextmanager
def _as_could_not_check(action: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CouldNotCheck(
            f"cannot {action}: {error.strerror or error}",
            hint="Free disk space, or point NIX_SEED_CACHE at a directory you can write to.",
        ) from error
