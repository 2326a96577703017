"""A store that is mounted while it fills, and an ordinary one afterwards.

Below the root, in a directory of its own, lie the FUSE mount (``lower``), what the overlay above it
needs (``work``), the fetched frames (``frames``) and finished store paths (``staged``). The overlay
is mounted at the store; its upper layer is the store itself, so whatever is built meanwhile is
where it belongs. When every path is staged, all of them are renamed into the store and the mounts
are taken away; those who still use them are served until they end.

Two processes do the work: one serves, one fills. Should the first die, the second serves as well,
if the kernel asks again what was not answered; else readers get errors. Should both, the store
lacks what ``owed`` lists until the next command, which ``recover``s.
"""

import contextlib
import fcntl
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from nix_seed.core.errors import CouldNotCheck, InputError, NixSeedError
from nix_seed.core.files import explained, locked, open_lock
from nix_seed.core.values import dataclass
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.formats.oci.manifest import Descriptor
from nix_seed.image.read.safe_root import open_directory, opened_directory, remove, remove_tree
from nix_seed.registry.store import Held
from nix_seed.use.hydrate_layer import Target, hydrate_layer, layer_tasks
from nix_seed.use.mount import linux
from nix_seed.use.mount.frame_file import MountedLayer
from nix_seed.use.mount.frames import FrameStore, RangeReader
from nix_seed.use.mount.fuse import FuseServer
from nix_seed.use.mount.owed import read_owed, state_directory, write_owed
from nix_seed.use.mount.seed import MountableSeed
from nix_seed.use.rules.tree import StoreTree
from nix_seed.use.store import PARTIAL, locked_store, place, tidied, uncollected

_LOWER, _WORK, _STAGED, _FRAMES = "lower", "work", "staged", "frames"
_LEAVE, _LOCK, _LOG, _FAILED = "leave", "lock", "log", "failed"
_TURN: Final = 0.05  # seconds between two looks at what others do


@dataclass(frozen=True, slots=True)
class StoreMount:
    """A mount to be made: *wanted* paths of *seed*, from *source*, in the store below *root*.

    With *keep* it stays when everything is fetched, until it is told to leave.
    """

    root: Path
    seed: MountableSeed
    wanted: frozenset[StorePath]
    source: RangeReader
    keep: bool = False

    @property
    def state(self) -> Path:
        """The directory of all that the mount needs."""
        return state_directory(self.root)

    @property
    def store(self) -> Path:
        """The store's own directory, where the overlay is mounted."""
        return self.root.resolve() / "nix/store"


def why_not_mounted_store(root: Path) -> str | None:
    """Return why no store below *root* can be mounted by this user; None where it may work."""
    if os.getuid() != 0:
        return "a store that others see is mounted by root alone: use sudo"
    return linux.why_not_here() or (
        f"{root} is not a plain path" if set(str(root)) & set(":,\\\n") else None
    )


def mount_store(mount: StoreMount) -> None:
    """Mount, and leave two processes behind that serve and fill; the store must be locked.

    The paths are on record as owed when this returns, and the caller has them registered. Raises
    ``NotMountable``, and nothing is mounted then.
    """
    problem = why_not_mounted_store(mount.root)
    if problem is None and linux.is_mounted(mount.store):
        # Whoever made it so may look at it from a namespace of its own, as Nix's daemon does.
        problem = f"{mount.store} is a mount already"
    if problem is not None:
        raise linux.NotMountable(f"the store cannot be mounted: {problem}")
    state = mount.state
    with explained(f"writing to {state}"):
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in (_LOWER, _WORK, _STAGED):
            (state / name).mkdir(exist_ok=True)
        for name in (_LEAVE, _FAILED):
            (state / name).unlink(missing_ok=True)
        lock = open_lock(state / _LOCK)
        fcntl.flock(lock, fcntl.LOCK_EX)
    device, real = linux.open_device(), open_directory(mount.store)
    try:
        try:
            linux.mount_fuse(device, state / _LOWER)
        except OSError as error:
            raise linux.NotMountable(f"the store cannot be mounted: {error.strerror}") from error
        write_owed(mount.root, mount.wanted)
        _leave_behind(mount, device, real, lock.fileno())
    except BaseException:
        _take_away(mount.root)
        raise
    finally:
        os.close(device)
        os.close(real)
        lock.close()


def recover(root: Path) -> None:
    """Clean up after a mount whose processes are gone; the store must be locked.

    What they had finished is moved into the store. Raises ``InputError`` while they live.
    """
    state = state_directory(root)
    if not state.is_dir():
        return
    with explained(f"writing to {state}"):
        if is_served(root):
            raise InputError(
                f"the store below {root} is mounted, and filling",
                hint=f"wait, or finish it first: nix-seed unmount --root {root}",
            )
        _take_away(root)
        with opened_directory(root / "nix/store") as real:
            _move_in(root, real)
        if not read_owed(root):
            _remove_state(root)


def is_served(root: Path) -> bool:
    """Whether the processes of a mount below *root* live, and have not given up."""
    path = state_directory(root) / _LOCK
    if not path.exists() or (path.parent / _FAILED).exists():
        return False
    try:
        with locked(path, wait=False):
            return False
    except BlockingIOError:
        return True


def wait_until_whole(root: Path, *, leave: bool = False) -> None:
    """Wait until the store below *root* needs no mount; with *leave*, tell it that it may go.

    Raises ``CouldNotCheck`` where what fills it gave up.
    """
    state = state_directory(root)
    if leave and state.is_dir():
        (state / _LEAVE).touch()
    while state.is_dir():
        # Without a list of what is owed the store is whole, and the rest is being removed.
        if (state / "owed").exists() and not is_served(root):
            log = state / _LOG
            said = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            raise CouldNotCheck(
                f"the store below {root} was not filled to its end",
                hint="run the same command again: it goes on from here",
                detail=said,
            )
        time.sleep(_TURN)


def _leave_behind(mount: StoreMount, device: int, real: int, lock: int) -> None:
    """Start what serves, wait until it does, lay the overlay above it, start what fills."""
    reads, writes = os.pipe()
    _daemon(mount, lambda: _serve(mount, device), {lock, device, writes})
    os.close(writes)

    # The server closes its end when it dies; the filler is told by that.
    # Mount the overlay; names are relative, which takes a working directory.
    def lay() -> None:
        os.chdir(mount.state)
        linux.mount_overlay(_LOWER, "../store", _WORK, mount.store)

    problem = linux.try_in_child(lay)
    if problem is not None:
        raise linux.NotMountable(f"the store cannot be mounted: {problem}")
    _daemon(mount, lambda: _fill(mount, real, reads, device), {lock, real, reads, device})
    os.close(reads)


def _daemon(mount: StoreMount, work: Callable[[], None], kept: set[int]) -> None:
    """Do *work* in a process of its own that nothing of ours waits for.

    Of what is open here it has only the descriptors *kept*: a lock is held as long as anyone has
    it open, and who waits for a FUSE device waits as long as anyone holds that.
    """
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    code = 1
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        _quiet(mount.state / _LOG, kept)
        os.chdir("/")
        work()
        code = 0
    except BaseException as error:
        with contextlib.suppress(OSError):
            words = error.message if isinstance(error, NixSeedError) else repr(error)
            os.write(2, f"{words}\n".encode(errors="replace"))
    finally:
        os._exit(code)


def _quiet(log: Path, kept: set[int]) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    null = os.open(os.devnull, os.O_RDWR)
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    # Numbers stay taken: what still believes to own one must not close another's file.
    for number in map(int, os.listdir("/proc/self/fd")):
        if number not in (kept | {null, said}):
            with contextlib.suppress(OSError):
                os.fstat(number)
                os.dup2(null, number, inheritable=False)
    os.dup2(said, 1)
    os.dup2(said, 2)


def _serve(mount: StoreMount, device: int) -> None:
    # In many threads' pools it would keep many times as much.
    linux.keep_memory(mmap_from=128 << 10, trim_from=1 << 20)
    frames = FrameStore(mount.state / _FRAMES, mount.seed.layers, mount.source)
    server = _server(mount, device, frames)
    server.start()
    frames.start_filling(mount.seed.first, mount.seed.round_trip)
    while not server.wait(1.0):
        if not frames.is_filling() and not frames.is_whole():
            # Others may take the mount away now; until then, what can be had is served.
            with contextlib.suppress(OSError):
                (mount.state / _FAILED).touch()


def _server(mount: StoreMount, device: int, frames: FrameStore) -> FuseServer:
    shown = {path.base_name.encode() for path in mount.wanted}
    tree = StoreTree([layer.contents for layer in mount.seed.layers], shown)
    owner = mount.store.parent.stat()
    return FuseServer(device, tree, frames.contents, (owner.st_uid, owner.st_gid))


def _fill(mount: StoreMount, real: int, server: int, device: int) -> None:
    """Wait until all is fetched (or fetch it, if the server died), unpack, move in, take away."""
    os.nice(10)
    frames = FrameStore(mount.state / _FRAMES, mount.seed.layers, mount.source)
    failed = mount.state / _FAILED
    ended = threading.Event()
    deputy = _server(mount, device, frames)

    def stand_in() -> None:
        os.read(server, 1)  # nothing is ever written: it returns when the server is gone
        ended.set()
        if not deputy.take_over():
            os.close(device)  # by which the kernel knows that nobody will answer

    threading.Thread(target=stand_in, daemon=True).start()
    while not frames.is_whole() and not ended.is_set():
        if failed.exists():
            raise CouldNotCheck(f"not all of {mount.seed.seed.name} could be fetched")
        time.sleep(_TURN)
    while mount.keep and not (mount.state / _LEAVE).exists():
        time.sleep(_TURN)
    try:
        _stage(mount, frames)
    except BaseException:
        failed.touch()
        raise
    frames.stop()
    with locked_store(mount.root), uncollected(mount.root):
        _move_in(mount.root, real)
        _take_away(mount.root)
    # The last users are served from files that are open; they need no names.
    _remove_state(mount.root)
    deputy.wait()


class _LayerBlobs:
    """Whole layers out of a ``FrameStore``, for readers of blobs; parts are not needed."""

    def __init__(self, frames: FrameStore, layers: Sequence[MountedLayer]) -> None:
        self._frames = frames
        self._positions = {layer.descriptor.digest: at for at, layer in enumerate(layers)}

    def open_blob(self, blob: Descriptor, held: Held | None = None) -> Iterator[bytes]:  # noqa: ARG002
        """Yield the frames of *blob*, each checked; without the seek table, which says no more."""
        return self._frames.blob(self._positions[blob.digest])

    def read_range_unverified(self, blob: Descriptor, start: int, length: int) -> bytes:
        """Refuse: a mounted layer is unpacked as a whole."""
        raise InputError(f"{blob.digest} is read as a whole, not {length} bytes from {start}")


def _stage(mount: StoreMount, frames: FrameStore) -> None:
    """Unpack every wanted path, each proved by its NAR hash."""
    os.umask(0)
    blobs = _LayerBlobs(frames, mount.seed.layers)
    with tidied(mount.state / _STAGED) as (staged, there):
        wanted = frozenset(path for path in mount.wanted if path.base_name not in there)
        for task in layer_tasks(mount.seed.seed, wanted):
            hydrate_layer(task, blobs, Target(staged, case_hack=False, threads=0))


def _move_in(root: Path, real: int) -> None:
    """Rename what is staged into the store, open as *real*, unless it was deleted meanwhile."""
    path = state_directory(root) / _STAGED
    if not path.is_dir():
        return
    with opened_directory(path) as staged:
        for name in sorted(os.listdir(staged)):
            if os.fsencode(name).startswith(PARTIAL):
                continue
            if _is_whiteout(name, real):
                remove(name, staged)
                continue
            with linux.as_root():  # directories of the store are moved by nobody else
                place_from(staged, os.fsencode(name), real)
        for name in os.listdir(real):
            if _is_whiteout(name, real):
                os.unlink(name, dir_fd=real)
    if all(os.path.lexists(f"/proc/self/fd/{real}/{p.base_name}") for p in read_owed(root)):
        (state_directory(root) / "owed").unlink(missing_ok=True)


def place_from(source: int, name: bytes, store: int) -> None:
    """Move *name* from one open directory to another, replacing what an overlay copied up."""
    beside = PARTIAL + name
    os.rename(name, beside, src_dir_fd=source, dst_dir_fd=store)
    place(store, beside, name)


def _is_whiteout(name: str, store: int) -> bool:
    """Whether an overlay's upper layer says that what lies below was deleted."""
    try:
        found = os.stat(name, dir_fd=store, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def _take_away(root: Path) -> None:
    """Unmount what is mounted below *root*, dead or alive; those who use it keep it."""
    lower, store = state_directory(root) / _LOWER, root.resolve() / "nix/store"
    if not linux.is_mounted(lower):
        return
    connection = None if is_served(root) else linux.connection_of(lower)
    if linux.is_mounted(store):
        linux.detach(store)
    linux.detach(lower)
    if connection is not None:
        linux.abort(connection)


def _remove_state(root: Path) -> None:
    state = state_directory(root)
    with contextlib.suppress(OSError), linux.as_root():
        remove_tree(state)
