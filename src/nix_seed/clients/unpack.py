"""Unpack an image into a root directory, verified, in parallel, all or nothing.

``unpack(image, root)`` makes a root; ``unpacked(image, cache)`` does so once per manifest digest.
Layers are unpacked side by side into directories of their own while their digests are computed,
and only when every digest and diffID has proved right are they merged and the result renamed into
place. A killed run leaves a ``.partial`` directory, which the next run removes.
"""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import stat
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from nix_seed.clients.forking import may_fork
from nix_seed.clients.image_layout import Image
from nix_seed.clients.layer_stream import Allowance, open_layer
from nix_seed.clients.merge_layers import merge_layer
from nix_seed.clients.safe_root import open_directory, remove
from nix_seed.clients.unpack_layer import Unpacked, unpack_layer
from nix_seed.ground.errors import CouldNotCheck, InputError

__all__ = ["Limits", "clear_unpacked", "unpack", "unpacked"]


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
    """Return the root of *image* in *cache*, unpacking it first if it is not there.

    The root is shared and must never be written to. Two processes that ask at once unpack once.
    """
    root = cache / f"sha256-{image.digest.hex}"
    with _as_could_not_check(f"keep unpacked images in {cache}"):
        cache.mkdir(parents=True, exist_ok=True)
        if root.is_dir():
            os.utime(cache / root.name)  # the time of last use, by which old ones are cleared away
            return root
        with _locked(cache / f".lock-{image.digest.hex}"):
            if not root.is_dir():
                unpack(image, root, limits)
    return root


def clear_unpacked(cache: Path, before: float) -> tuple[str, ...]:
    """Remove roots last used before the time *before*; return their names. A running one stays."""
    removed = []
    with _as_could_not_check(f"clear unpacked images in {cache}"):
        for root in sorted(cache.glob("sha256-*")) if cache.is_dir() else []:
            if root.stat().st_mtime < before and not _is_mounted(root):
                _remove(root)
                removed.append(root.name)
    return tuple(removed)


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
        what = f"{self.image.name}, layer {position + 1} of {len(self.image.layers)}"
        directory = self.partial / str(position)
        directory.mkdir(mode=0o755)
        path = self.image.blob_path(layer.digest)
        with open_layer(path, layer, diff_id, self.allowance, what) as stream:
            return unpack_layer(stream, directory, what, self.entries)


_job: _Job | None = None


def _begin(job: _Job) -> None:
    global _job  # noqa: PLW0603 - a worker process has one job, which fork hands it unpickled
    _job = job


def _layer(position: int) -> Unpacked:
    assert _job is not None
    return _job.layer(position)


def _unpack_layers(image: Image, partial: Path, limits: Limits) -> list[Unpacked]:
    space = os.statvfs(partial)
    allowance = Allowance(min(limits.total, space.f_bavail * space.f_frsize))
    job = _Job(image, partial, allowance, limits.entries)
    count = len(image.layers)
    workers = min(limits.workers or _cores(), count)
    # Making small files is bound by the interpreter's lock, so cores mean processes, not threads.
    # Only a single-threaded process may fork safely; any other unpacks layer by layer.
    if workers < 2 or not may_fork():
        return [job.layer(position) for position in range(count)]
    # The largest first: a big layer begun last would leave the other cores idle at the end.
    order = sorted(range(count), key=lambda at: -image.layers[at][0].size)
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, context, _begin, (job,)) as pool:
        tasks = {at: pool.submit(_layer, at) for at in order}
        done, _ = wait(tasks.values(), return_when=FIRST_EXCEPTION)
        pool.shutdown(wait=True, cancel_futures=True)
    for task in done:
        task.result()
    return [tasks[at].result() for at in range(count)]


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS; elsewhere it knows a container's share
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _merge(layers: list[Unpacked], root: Path, image: Image) -> None:
    root.mkdir(mode=0o755)
    fd = open_directory(root)
    try:
        for position, layer in enumerate(layers):
            merge_layer(fd, layer, f"{image.name}, layer {position + 1} of {len(layers)}")
    finally:
        os.close(fd)
    # A mode the image gives its root must not keep the owner from renaming it.
    root.chmod(stat.S_IMODE(root.stat().st_mode) | 0o700)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove(path: Path) -> None:
    if path.parent.is_dir():
        fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            remove(path.name, fd)
        finally:
            os.close(fd)


@contextlib.contextmanager
def _as_could_not_check(action: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CouldNotCheck(
            f"cannot {action}: {error.strerror or error}",
            hint="Free disk space, or point NIX_SEED_CACHE at a directory you can write to.",
        ) from error
