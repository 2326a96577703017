"""Layers of a seed, from a registry or a layout, straight into a store, side by side.

Each is in a process of its own: making small files is bound by Python's lock. A worker fetches,
decodes, writes and hashes the layer it was given; it ends with its parent, however that ends, so
that a killed run never writes on behind the next one's back.

Whole layers are checked against their digest as well. Of a layer that is needed only in part, just
the frames of those paths are fetched: then no digest of the blob can be checked, and what protects
is the NAR hash of each path, against a spec whose own narHash the verified manifest states.
"""

from __future__ import annotations

import contextlib
import gc
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from functools import partial
from typing import TYPE_CHECKING

from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.core.processes import forked_pool
from nix_seed.core.values import dataclass
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.formats.oci.manifest import Descriptor, MediaType
from nix_seed.formats.zstd import FOOTER_SIZE, SeekTable
from nix_seed.image.read.stream import BlobReader, Spent, TarPieces, layer_limit
from nix_seed.image.read.tar import Entry, EntryKind, read_entries
from nix_seed.image.rules.frames import Span, locate_paths, spans_of
from nix_seed.use.mount import linux
from nix_seed.use.store import StorePathWriter, check_path

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

    from nix_seed.image.read.spec import RemoteSeed

_BATCH = 64


@dataclass(slots=True)
class _Worker:
    source: BlobReader
    target: Target

    def layer(self, task: LayerTask) -> Spent:
        return hydrate_layer(task, self.source, self.target)

    def intact(self, infos: Sequence[PathInfo]) -> list[StorePath]:
        target = self.target
        return [i.path for i in infos if check_path(i, target.store, case_hack=target.case_hack)]


_worker: _Worker | None = None


def _begin(worker: _Worker) -> None:
    global _worker  # noqa: PLW0603
    _worker = worker
    os.umask(0)
    gc.disable()  # entries make no cycles, and the process is as short-lived as its layers
    # Else glibc gives the memory of each written frame back to the kernel, and zeroing fresh pages
    # costs as much as decoding.
    linux.keep_memory(mmap_from=32 << 20, trim_from=256 << 20)


def _layer(task: LayerTask) -> Spent:
    assert _worker is not None
    return _worker.layer(task)


def _intact(infos: Sequence[PathInfo]) -> list[StorePath]:
    assert _worker is not None
    return _worker.intact(infos)


class Workers:
    """Runs tasks in *pool*, or here and now where there is none."""

    def __init__(self, pool: ProcessPoolExecutor | None, worker: _Worker) -> None:
        self._pool = pool
        self._worker = worker

    def layers(self, tasks: Sequence[LayerTask]) -> Iterator[tuple[LayerTask, Spent]]:
        """Hydrate *tasks*, the largest first; yield each when done. The first error ends all."""
        weights = {task.what: sum(task.paths[p].nar_size for p in task.wanted) for task in tasks}
        ordered = sorted(tasks, key=lambda task: (-weights[task.what], task.what))
        if self._pool is None:
            yield from ((task, self._worker.layer(task)) for task in ordered)
            return
        futures = {self._pool.submit(_layer, task): task for task in ordered}
        for future in as_completed(futures):
            yield futures[future], future.result()

    def intact(self, infos: Sequence[PathInfo]) -> frozenset[StorePath]:
        """Return those of *infos* that lie in the store exactly as they should."""
        batches = [infos[at : at + _BATCH] for at in range(0, len(infos), _BATCH)]
        if self._pool is None:
            found = map(self._worker.intact, batches)
        else:
            found = map(Future.result, [self._pool.submit(_intact, batch) for batch in batches])
        return frozenset(path for paths in found for path in paths)


@contextlib.contextmanager
def workers(source: BlobReader, target: Target, count: int) -> Iterator[Workers]:
    """Yield *count* workers; all have ended on leaving. *source* must be of use after a fork.

    An error on the way kills those still at work: what they were writing is the caller's to remove.
    """
    worker = _Worker(source, target)
    # Only a single-threaded process may fork safely; any other does it layer by layer.
    if threading.active_count() > 1:
        before = os.umask(0)
        try:
            yield Workers(None, worker)
        finally:
            os.umask(before)
        return
    with forked_pool(count, partial(_begin, worker)) as pool:
        try:
            yield Workers(pool, worker)
        except BaseException:
            _end(pool)
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _end(pool: ProcessPoolExecutor) -> None:
    # A layer of gigabytes is not worth waiting for when all is lost.
    processes = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()
    for process in processes:
        # A pool that was shut down once waits for none: one that still dies may write meanwhile.
        process.join()


_STORE = b"nix/store/"
_PARENTS = (b"nix", b"nix/store")
_REQUEST = 8 << 20  # bytes asked for at once, where only parts are wanted
_TAIL = 16 << 10  # holds the seek table of some 2,000 frames
# Fetching most of a layer by parts is no gain over all of it, whose digest can be checked.
_MOST = 0.75


@dataclass(frozen=True, slots=True)
class LayerTask:
    """A layer, what its spec says it holds, and which of these paths are *wanted*."""

    layer: Descriptor
    paths: Mapping[StorePath, PathInfo]
    wanted: frozenset[StorePath]
    what: str


def layer_tasks(seed: RemoteSeed, wanted: frozenset[StorePath]) -> list[LayerTask]:
    """Return what is to be taken of which layers of *seed*, to have the paths *wanted*."""
    tasks = []
    for number, group in enumerate(seed.spec.layers):
        here = wanted.intersection(group.paths)
        if here:
            paths = {path: seed.spec.paths[path] for path in group.paths}
            what = f"{seed.name}, layer {number + 1} of {len(seed.manifest.layers)}"
            tasks.append(LayerTask(seed.manifest.layers[number], paths, here, what))
    return tasks


@dataclass(frozen=True, slots=True)
class Target:
    """The store directory, open as *store*, and how to write there (see ``StorePathWriter``)."""

    store: int
    case_hack: bool
    threads: int


def hydrate_layer(task: LayerTask, source: BlobReader, target: Target) -> Spent:
    """Put the wanted paths of *task* in place, each verified; return what it took.

    Raises ``CheckedFalse`` where anything is not as manifest or spec say. Paths that are in place
    by then are right all the same, and no unfinished one is left.
    """
    spans = _spans(task, source)
    what, limit = task.what, layer_limit(task.paths.values())
    chunks = source.open_blob(task.layer) if spans is None else _parts(task.layer, spans, source)
    kind = task.layer.media_type
    with TarPieces(chunks, kind, limit, what, target.threads) as pieces:
        reader = _Layer(task, target, pieces)
        reader.run(whole=spans is None)
        pieces.drain()
        return pieces.spent


def _spans(task: LayerTask, source: BlobReader) -> list[Span] | None:
    """Return which parts to fetch, None for all of it."""
    if task.layer.media_type != MediaType.LAYER_ZSTD or len(task.wanted) == len(task.paths):
        return None
    sizes = {path: info.nar_size for path, info in task.paths.items()}
    if sum(sizes[path] for path in task.wanted) > _MOST * sum(sizes.values()):
        return None
    try:
        table = _seek_table(task, source)
    except InputError:  # not ours, but zstd all the same
        return None
    places = locate_paths(table, task.paths)
    return None if places is None else spans_of([places[path] for path in task.wanted])


def _seek_table(task: LayerTask, source: BlobReader) -> SeekTable:
    layer, what = task.layer, task.what
    length = min(layer.size, _TAIL)
    tail = source.read_range_unverified(layer, layer.size - length, length)
    size = SeekTable.size_from_footer(tail[-FOOTER_SIZE:], what)
    if size > layer.size:
        raise InputError(f"{what}: the seek table is larger than the blob")
    if size > len(tail):
        tail = source.read_range_unverified(layer, layer.size - size, size)
    table = SeekTable.parse(tail[-size:], what)
    table.check_blob(layer.size, what)
    return table


def _parts(layer: Descriptor, spans: list[Span], source: BlobReader) -> Iterator[bytes]:
    for start, end in spans:
        for at in range(start, end, _REQUEST):
            yield source.read_range_unverified(layer, at, min(_REQUEST, end - at))


class _Layer:
    """Routes entries to the path they belong to."""

    def __init__(self, task: LayerTask, target: Target, pieces: TarPieces) -> None:
        self._task = task
        self._target = target
        self._pieces = pieces
        self._expected = {path.base_name.encode(): info for path, info in task.paths.items()}
        self._wanted = {path.base_name.encode() for path in task.wanted}
        self._seen: set[bytes] = set()
        self._current = b""
        self._writer: StorePathWriter | None = None

    def run(self, *, whole: bool) -> None:
        stream = self._pieces if whole else _Ended(self._pieces)
        try:
            for entry in read_entries(stream, self._task.what):
                self._route(entry)
            self._finish()
        except BaseException:
            if self._writer is not None:
                self._writer.abandon()
            raise
        missing = self._wanted - self._seen
        if missing:
            raise self._refuse(f"lacks {min(missing).decode()}, which its spec lists there")

    def _route(self, entry: Entry) -> None:
        name = entry.name
        if not name.startswith(_STORE):
            if name in _PARENTS and entry.kind is EntryKind.DIRECTORY:
                return
            raise self._refuse(f"holds {name!r}, which is no store path")
        base, _, below = name[len(_STORE) :].partition(b"/")
        if base != self._current:
            self._finish()
            self._begin(base)
        if self._writer is not None:
            self._writer.entry(below, entry)

    def _begin(self, base: bytes) -> None:
        info = self._expected.get(base)
        if info is None:
            raise self._refuse(f"holds {base!r}, which its spec does not list there")
        if base in self._seen:
            raise self._refuse(f"holds {base.decode()} in two parts")
        self._seen.add(base)
        self._current = base
        if base in self._wanted:
            target = self._target
            self._writer = StorePathWriter(
                info, target.store, self._pieces, case_hack=target.case_hack
            )

    def _finish(self) -> None:
        if self._writer is not None:
            self._writer.finish()
            self._writer = None

    def _refuse(self, problem: str) -> CheckedFalse:
        return CheckedFalse(
            f"{self._task.what} {problem}",
            hint="the image is damaged or was altered: nothing unverified was kept",
        )


class _Ended:
    """Some frames of a tar, with the end that they lack."""

    def __init__(self, pieces: TarPieces) -> None:
        self._pieces = pieces

    def tell(self) -> int:
        return self._pieces.tell()

    def read(self, size: int) -> bytes:
        data = self._pieces.read(size)
        return data if data or size != 512 else bytes(512)
