"""The same work for many items, by several threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import copy_context
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


def in_parallel(work: Callable[[_T], _R], items: Iterable[_T], jobs: int) -> list[_R]:
    """Return what *work* makes of each item, *jobs* of them at once, in their order.

    The first error is raised once what has begun is done; the rest is not begun. One job, or one
    item, needs no thread.
    """
    items = tuple(items)
    if min(len(items), jobs) < 2:
        return [work(item) for item in items]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(jobs, "parallel") as pool:
        futures = [pool.submit(copy_context().run, work, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
