"""Store paths to finished layers: several layers at once, the largest first.

Layers whose key a target already knows are neither read nor compressed. Where layers go is the
caller's: ``LayerTarget`` is implemented by the layer cache, and by an upload.

Threads compress the frames: reading, hashing and compressing all release the interpreter's lock
(decision 0010 has the figures). The number of buffers bounds memory however many layers are under
way. Store paths are read by names as bytes, in an order of our own, and no symlink is followed.
"""

import errno
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Final, Protocol

from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError, NixSeedError
from nix_seed.core.events import OnEvent, listener
from nix_seed.core.values import dataclass
from nix_seed.formats.nix.nar import strip_case_hack
from nix_seed.formats.nix.store_path import STORE_DIR, PathInfo, StorePath
from nix_seed.image.rules.frames import FRAME_SIZE, Compressor, Sink
from nix_seed.image.rules.layer import (
    DIRECTORY,
    FILE,
    SYMLINK,
    FinishedLayer,
    Node,
    StoreReader,
    layer_key,
    write_layer,
)


class StoreFiles:
    """The store whose ``/nix/store/x`` lies at ``root/nix/store/x``: a ``StoreReader``.

    *case_hack* strips ``~nix~case~hack~`` suffixes from names, which Nix does on macOS alone.
    """

    def __init__(self, root: Path = Path("/"), *, case_hack: bool = sys.platform == "darwin"):
        self._store = os.fsencode(root / STORE_DIR.removeprefix("/"))
        self._case_hack = case_hack

    def walk(self, path: StorePath) -> Iterator[Node]:
        """Yield the nodes of *path*, depth first, entries by the bytes of their names."""
        source = os.path.join(self._store, path.base_name.encode())
        try:
            root = _node(source, b"", b"", 0, os.lstat(source))
            yield root
            # Iterators stacked by hand: a chain of generators costs each node its depth.
            stack = [self._entries(root)] if root.kind == DIRECTORY else []
            while stack:
                node = next(stack[-1], None)
                if node is None:
                    stack.pop()
                    continue
                yield node
                if node.kind == DIRECTORY:
                    stack.append(self._entries(node))
        except OSError as error:
            raise _trouble(path, error) from error

    def open(self, path: StorePath, node: Node) -> int:
        """Open a file of *path*."""
        try:
            return os.open(node.source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise _trouble(path, error) from error

    def read(self, handle: int, view: memoryview) -> int:
        """Fill *view* from its front; 0 at the end of the file."""
        try:
            return os.readv(handle, (view,))
        except OSError as error:
            raise CouldNotCheck(f"reading a file of the store failed: {error.strerror}") from error

    def close(self, handle: int) -> None:
        """Close the file."""
        os.close(handle)

    def _entries(self, directory: Node) -> Iterator[Node]:
        with os.scandir(directory.source) as scan:
            found = {entry.name: entry for entry in scan}
        depth, below = directory.depth + 1, directory.below + b"/"
        if self._case_hack:
            plain = {strip_case_hack(name): entry for name, entry in found.items()}
            if len(plain) != len(found):
                raise InputError(
                    f"{os.fsdecode(directory.source)} holds two files with one name"
                    " once Nix's case hack is undone"
                )
            found = plain
        for name in sorted(found):
            entry = found[name]
            if entry.is_dir(follow_symlinks=False):
                yield Node(DIRECTORY, below + name, name, depth, source=entry.path)
            else:
                status = entry.stat(follow_symlinks=False)
                yield _node(entry.path, below + name, name, depth, status)


def _node(source: bytes, below: bytes, name: bytes, depth: int, status: os.stat_result) -> Node:
    mode = status.st_mode
    if stat.S_ISREG(mode):
        executable = bool(mode & stat.S_IXUSR)
        return Node(FILE, below, name, depth, status.st_size, executable, source=source)
    if stat.S_ISLNK(mode):
        return Node(SYMLINK, below, name, depth, target=os.readlink(source), source=source)
    if stat.S_ISDIR(mode):
        return Node(DIRECTORY, below, name, depth, source=source)
    raise InputError(f"{os.fsdecode(source)} is no file, directory or symlink; no store holds such")


def _trouble(path: StorePath, error: OSError) -> NixSeedError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        return CheckedFalse(
            f"{path} is gone, or part of it: {error.strerror}: {_name(error)}",
            hint="the store changed while it was read (a garbage collection?): run this again",
        )
    return CouldNotCheck(f"{path} cannot be read: {error.strerror}: {_name(error)}")


def _name(error: OSError) -> str:
    name = error.filename
    return os.fsdecode(name) if isinstance(name, bytes | str) else "an open file"


_MOST_BUFFERS: Final = 32


class Stopped(BaseException):
    """Raised in the threads of layers whose sibling failed; never leaves ``assemble_layers``."""


class FrameThreads:
    """A ``FramePool`` of *threads* threads, shared by all layers under way."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="compress")
        self._free: list[bytearray] = []
        self._unmade = min(2 * threads + 2, _MOST_BUFFERS)
        self._changed = threading.Condition()
        self._stopped = False
        self.ahead = min(threads + 1, _MOST_BUFFERS)
        """How many frames one layer may have under way."""

    def take(self) -> bytearray:
        """Lend a buffer; raise ``Stopped`` after ``stop``."""
        with self._changed:
            while not (self._free or self._unmade or self._stopped):
                self._changed.wait()
            if self._stopped:
                raise Stopped
            if self._free:
                # The one given back last is the likeliest to be in the processor's cache.
                return self._free.pop()
            self._unmade -= 1
        return bytearray(FRAME_SIZE)

    def give(self, buffer: bytearray) -> None:
        """Take a buffer back."""
        with self._changed:
            self._free.append(buffer)
            self._changed.notify()

    def submit(
        self, compress: Callable[[memoryview], bytes], buffer: bytearray, size: int
    ) -> Future[bytes]:
        """Compress the first *size* bytes of *buffer* in one of the threads."""
        return self._threads.submit(self._work, compress, buffer, size)

    def stop(self) -> None:
        """Make every layer under way give up at its next frame."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def close(self) -> None:
        """Wait for the threads and let them go."""
        self._threads.shutdown(cancel_futures=True)

    def _work(self, compress: Callable[[memoryview], bytes], buffer: bytearray, size: int) -> bytes:
        try:
            with memoryview(buffer) as view, view[:size] as part:
                return compress(part)
        finally:
            self.give(buffer)


@dataclass(frozen=True, slots=True)
class LayerFinished:
    """A layer that is whole, the key it is cached under, and whether it came from there."""

    key: str
    layer: FinishedLayer
    reused: bool


class LayerTarget(Protocol):
    """Where layers go. Called from several threads."""

    def find(self, key: str) -> FinishedLayer | None:
        """Return the layer of that key if the target has it, whole."""
        ...

    def write(self, key: str, produce: Callable[[Sink], FinishedLayer]) -> FinishedLayer:
        """Call *produce* with a sink; keep what it took, unless it raises."""
        ...


@dataclass(frozen=True, slots=True)
class Afresh:
    """Where layers go that are all made anew, whatever *target* holds."""

    target: LayerTarget

    def find(self, _key: str) -> None:
        """Return nothing."""

    def write(self, key: str, produce: Callable[[Sink], FinishedLayer]) -> FinishedLayer:
        """Have *target* keep what *produce* makes."""
        return self.target.write(key, produce)


def assemble_layers(
    layers: Sequence[Sequence[PathInfo]],
    compressor: Compressor,
    store: StoreReader,
    target: LayerTarget,
    *,
    threads: int | None = None,
) -> tuple[LayerFinished, ...]:
    """Write every layer to *target* and return them in the order given.

    *threads* is the number of processors by default. Each layer is told when it is done, by several
    threads. The first error stops the other layers and is raised; layers that were finished
    stay in the target, so that the next run goes on from there.
    """
    compressor.check_at_hand()
    work = _Work(compressor, store, target, listener())
    count = threads or os.cpu_count() or 1
    sizes = [sum(info.nar_size for info in paths) for paths in layers]
    order = sorted(range(len(layers)), key=lambda position: -sizes[position])
    frames = FrameThreads(count)
    readers = ThreadPoolExecutor(count, thread_name_prefix="layer")
    try:
        begun = {position: readers.submit(work.do, layers[position], frames) for position in order}
        futures = [begun[position] for position in range(len(layers))]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        # In the order given, so that of several errors the same one is told each time.
        for future in futures:
            if future in done:
                future.result()
        return tuple(future.result() for future in futures)
    finally:
        frames.stop()
        readers.shutdown(cancel_futures=True)
        frames.close()


@dataclass(frozen=True, slots=True)
class _Work:
    compressor: Compressor
    store: StoreReader
    target: LayerTarget
    told: OnEvent

    def do(self, paths: Sequence[PathInfo], frames: FrameThreads) -> LayerFinished:
        key = layer_key(paths, self.compressor)
        found = self.target.find(key)
        layer = found or self.target.write(
            key, lambda sink: write_layer(paths, self.compressor, self.store, sink, frames)
        )
        done = LayerFinished(key, layer, reused=found is not None)
        self.told(done)
        return done
