"""Run an image that is mounted, not unpacked: bubblewrap above a FUSE mount of its store.

This process itself answers the mount, which lives in a namespace of the command's own. So whatever
ends either of them takes the mount away, and nothing is left to clean up.
"""

import contextlib
import fcntl
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import field, replace
from pathlib import Path

from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.core.files import explained, open_lock
from nix_seed.core.parallel import in_parallel
from nix_seed.core.values import dataclass
from nix_seed.formats.nix.database import DATABASE, build_database
from nix_seed.formats.oci.manifest import Descriptor
from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.image.read.check import unpack_last
from nix_seed.image.read.safe_root import remove_tree
from nix_seed.registry.layout import Image, Layout, open_image
from nix_seed.registry.layout_store import LayoutStore
from nix_seed.registry.store import Fetched, ImageStore
from nix_seed.use.engines.base import Job, check_started
from nix_seed.use.engines.bwrap import laid_out, scratch_directory
from nix_seed.use.engines.loopback import leave_and_listen, take_listener
from nix_seed.use.mount import linux
from nix_seed.use.mount.frames import FrameStore
from nix_seed.use.mount.fuse import FuseServer
from nix_seed.use.mount.seed import MountableSeed, open_mountable
from nix_seed.use.rules.tree import StoreTree
from nix_seed.use.store import add_new_files

_LAST = 2.0  # seconds
_PATIENCE = 60.0  # seconds
_ROOT, _WRITTEN = "root", "root-written"
_FRAMES, _LAYOUT, _LOCK = "frames", "layout", "lock"


class Undelivered(linux.NotMountable):
    """The command read what could not be fetched, so that its result says nothing."""


@dataclass(frozen=True, slots=True)
class Mounted:
    """Bubblewrap above a mount of *seed*; what was fetched is kept in *directory*.

    *frames* knows what the command read. Unless it is told that nothing but the image counts, it
    *fills* itself with all else, and the store has what evaluating writes, where that was recorded.
    Writable layers lie in *cache*``/runs``.
    """

    cache: Path
    directory: Path
    seed: MountableSeed
    frames: FrameStore
    fills: bool = True
    name: str = "bwrap"
    _filling: list[bool] = field(default_factory=list)

    def unavailable(self) -> str | None:
        """See ``Engine``."""
        return why_not_mounted()

    def prepare(self, image: Image) -> str:
        """See ``Engine``: the path of a root that holds all but the store's mount."""
        written = self.directory / _WRITTEN
        root = written if self.fills and (self.seed.written or written.is_dir()) else None
        root = root or self.directory / _ROOT
        if not root.is_dir():
            partial = self.directory / f".{root.name}.{os.getpid()}"
            with explained(f"writing to {self.directory}"):
                partial.mkdir()
                layer = image.manifest.layers[-1]
                unpack_last(LayoutStore(image.layout), layer, partial)
                (partial / "nix/store").mkdir(parents=True, exist_ok=True)
                if root == written:
                    self._add_written(partial)
                with contextlib.suppress(FileExistsError, OSError):
                    partial.rename(root)
        return str(root)

    def _add_written(self, root: Path) -> None:
        """Give the new *root* what evaluating writes, so that Nix finds it there."""
        spec = self.seed.seed.spec
        if not spec.withheld:  # of these, the database is told by the command's own script
            (root / DATABASE).unlink(missing_ok=True)
            files = add_new_files(root, self.seed.written, spec.paths)
            infos = (spec.registrable(path) for path in sorted(spec.paths))
            (root / DATABASE).write_bytes(build_database(infos, files))

    def run(self, prepared: str, image: Image, job: Job) -> int:
        """See ``Engine``. Raises ``Undelivered`` where something read could not be fetched."""
        with scratch_directory(self.cache / "runs") as scratch:
            (scratch / "store/lower").mkdir(parents=True)
            command = laid_out(scratch, Path(prepared), image, job)
            ours, theirs = socket.socketpair()
            process = _start(command, scratch / "store/lower", theirs, alone=job.serve is not None)
            with ours:
                if job.serve is not None:
                    take_listener(ours, job.serve)
                device = _received(ours)
            tree = StoreTree([layer.contents for layer in self.seed.layers], None)
            server = FuseServer(device, tree, self.frames.contents)
            server.start()
            if self.fills:
                self._fill()
            try:
                code = process.wait()
            except BaseException:
                process.kill()
                raise
            finally:
                # Its last process may outlive the command for a moment. A descriptor that is
                # still read from is not closed: its number might be given to another file.
                if server.wait(_LAST):
                    os.close(device)
            # First of all: then it may not even have started, and anything else is its echo.
            if self.frames.undelivered:
                raise Undelivered(
                    f"{len(self.frames.undelivered)} parts of {self.seed.seed.name} that the"
                    " command read could not be fetched",
                    hint="try again, or fetch all of it first: --eager",
                    detail="\n".join(self.frames.undelivered[:10]),
                )
            check_started(job, self.name, code, command)
            return code if code >= 0 else 128 - code

    def complete(self) -> None:
        """Wait until nothing of the image is left to fetch; ``CouldNotCheck`` on no progress."""
        self._fill()
        before = -1
        while not self.frames.wait_filled(_PATIENCE):
            if self.frames.fetched == before or not self.frames.is_filling():
                raise CouldNotCheck(
                    f"not all of {self.seed.seed.name} could be fetched",
                    hint="the command itself had all it read; try again for the rest",
                )
            before = self.frames.fetched

    def _fill(self) -> None:
        if not self._filling:
            self._filling.append(True)
            self.frames.start_filling(self.seed.first, self.seed.round_trip)


def why_not_mounted() -> str | None:
    """Return why no image can be run from a mount here; None where one can."""

    def probe() -> None:
        linux.enter_mount_namespace()
        device = linux.open_device()
        linux.mount_fuse(device, Path("/mnt") if Path("/mnt").is_dir() else Path("/tmp"))

    return linux.why_not_here() or linux.try_in_child(probe)


@contextlib.contextmanager
def mounted_engine(
    cache: Path, root: Fetched, source: ImageStore, name: str, *, fills: bool = True
) -> Iterator[tuple[Image, Mounted]]:
    """Yield the image *root* of *source* with an engine that mounts it; nothing of ours is left.

    Only its documents and its last layer are fetched before. Raises ``NotMountable``, as
    ``open_mountable`` does.
    """
    problem = why_not_mounted()
    if problem is not None:
        raise linux.NotMountable(f"this machine mounts no images: {problem}")
    directory = cache / "mounted" / f"sha256-{root.descriptor.digest.hex}"
    with explained(f"writing to {directory}"):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    manifest = root.manifest(name)
    layout = LayoutStore(Layout.create(directory / _LAYOUT))

    def take_documents() -> LayoutStore:
        def take(blob: Descriptor) -> None:
            if not layout.has_blob(blob.digest):
                layout.take_blob(blob, lambda held: source.open_blob(blob, held))

        in_parallel(take, (manifest.config, *manifest.layers[-1:]), 2)
        return layout

    lacks = fills and not (directory / _WRITTEN).is_dir()
    seed = open_mountable(name, root, source, take_documents, written=lacks)
    described = layout.put_manifest(root.body, root.descriptor.media_type, "seed")
    reference = LayoutReference(str(directory / _LAYOUT), digest=described.digest)
    frames = FrameStore(directory / _FRAMES, seed.layers, source)
    with open_lock(directory / _LOCK) as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        os.utime(directory)  # the time of last use, by which old ones are cleared away
        try:
            image = replace(open_image(reference), name=name)
            yield image, Mounted(cache, directory, seed, frames, fills)
        finally:
            frames.stop()


def clear_mounted(cache: Path, before: float, *, dry: bool = False) -> tuple[str, ...]:
    """Remove what was kept of images last mounted before the time *before*; return their names.

    *dry* removes nothing.
    """
    removed = []
    for directory in sorted((cache / "mounted").glob("sha256-*")):
        with explained(f"clearing {directory}"), open_lock(directory / _LOCK) as lock:
            if directory.stat().st_mtime < before:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    removed.append(directory.name)
                    if not dry:
                        remove_tree(directory)
    return tuple(removed)


def _start(
    command: Sequence[str], lower: Path, theirs: socket.socket, *, alone: bool
) -> subprocess.Popen[bytes]:
    """Start *command* with mounts of its own, what is to be mounted at *lower* among them.

    *alone*: with a network of its own as well, and before all else a socket that listens there is
    sent.
    The descriptor that serves it is sent to the other end of *theirs*, or why there is none.
    """

    def before() -> None:
        try:
            if alone:
                leave_and_listen(theirs)
            linux.enter_mount_namespace()
            device = linux.open_device()
            linux.mount_fuse(device, lower)
            socket.send_fds(theirs, [b"+"], [device])
            os.close(device)
        except (OSError, CouldNotCheck) as error:
            theirs.send(b"-" + str(error).encode()[:2048])
            raise

    with theirs:
        try:
            return subprocess.Popen(command, preexec_fn=before)  # noqa: PLW1509
        except subprocess.SubprocessError as error:
            raise linux.NotMountable("the command's mounts could not be made") from error
        except OSError as error:
            raise InputError(f"{command[0]} could not be started: {error}") from error


def _received(ours: socket.socket) -> int:
    text, descriptors, _, _ = socket.recv_fds(ours, 4096, 1)
    if not descriptors:
        raise linux.NotMountable(
            f"the image could not be mounted: {text[1:].decode(errors='replace')}"
        )
    return descriptors[0]
