"""Work by threads: the same for many items, or what another thread takes as it comes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
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


_TURN = 0.05  # seconds


class _Abandoned(Exception):
    """Nobody takes any more what is made."""


def handed_over(
    make: Callable[[Callable[[_T], None]], object], room: int
) -> Generator[_T, None, None]:
    """Yield what *make*, in a thread of its own, hands to the function that it is given.

    At most *room* things wait to be taken. What *make* raises is raised here. Once this is closed,
    *make* ends at the next thing that it hands over, which is waited for.
    """
    from queue import Empty, Full, Queue

    waiting: Queue[tuple[tuple[_T, ...], BaseException | None]] = Queue(room)
    closed = threading.Event()

    def put(things: tuple[_T, ...], error: BaseException | None = None) -> None:
        while not closed.is_set():
            with suppress(Full):
                waiting.put((things, error), timeout=_TURN)
                return
        raise _Abandoned

    def work() -> None:
        with suppress(_Abandoned):
            try:
                make(lambda thing: put((thing,)))
                put(())
            except BaseException as error:
                put((), error)

    thread = threading.Thread(target=work, name="hand-over", daemon=True)
    thread.start()
    try:
        while True:
            things, error = waiting.get()
            if error is not None:
                raise error
            if not things:
                return
            yield from things
    finally:
        closed.set()
        while thread.is_alive():
            with suppress(Empty):
                waiting.get_nowait()  # it may wait for room
            thread.join(_TURN)
