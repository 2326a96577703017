"""Layers side by side, each in a process of its own: making small files is bound by Python's lock.

A worker fetches, decodes, writes and hashes the layer it was given; it ends with its parent,
however that ends, so that a killed run never writes on behind the next one's back.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial

from nix_seed.clients.hydrate_layer import BlobReader, LayerTask, Target, hydrate_layer
from nix_seed.clients.store_check import check_path
from nix_seed.clients.tar_pieces import Spent
from nix_seed.formats.nix.store_path import PathInfo, StorePath

__all__ = ["Workers", "cores", "workers"]

_BATCH = 64
# From glibc's malloc.h; elsewhere they are not known, and do nothing.
_ARENA_MAX, _MMAP_THRESHOLD, _TRIM_THRESHOLD = -8, -3, -1
_KEEP = 256 << 20


def cores() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS; elsewhere it knows a container's share
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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


def _begin(worker: _Worker, parent: tuple[int, int]) -> None:
    global _worker  # noqa: PLW0603 - a worker process has one job, which fork hands it unpickled
    _worker = worker
    os.umask(0)
    gc.disable()  # entries make no cycles, and the process is as short-lived as its layers
    _keep_memory()
    reads, writes = parent
    os.close(writes)

    def end_with_parent() -> None:
        os.read(reads, 1)  # nothing is ever written: it returns when the parent is gone
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _keep_memory() -> None:
    """Let glibc use the memory of a written frame for the next one.

    It would give each back to the kernel, and zeroing fresh pages costs as much as decoding.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in (
            (_ARENA_MAX, 1),
            (_MMAP_THRESHOLD, 32 << 20),
            (_TRIM_THRESHOLD, _KEEP),
        ):
            mallopt(option, value)


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
        ordered = sorted(tasks, key=lambda task: (-_weight(task), task.what))
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
    pipe = os.pipe()
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(count, context, partial(_begin, worker), (pipe,))
    try:
        yield Workers(pool, worker)
    except BaseException:
        _end(pool)
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        os.close(pipe[0])
        os.close(pipe[1])


def _end(pool: ProcessPoolExecutor) -> None:
    # A layer of gigabytes is not worth waiting for when all is lost.
    processes = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()


def _weight(task: LayerTask) -> int:
    return sum(task.paths[path].nar_size for path in task.wanted)
