"""What things lead to. It takes no recursion: chains are deeper than Python's stack."""

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

_T = TypeVar("_T", bound=Hashable)


def reach(starts: Iterable[_T], further: Callable[[_T], Iterable[_T] | None]) -> set[_T]:
    """Return *starts* and all that they lead to; *further* is asked once of each.

    What *further* returns None of is left out, with what only that leads to.
    """
    found: set[_T] = set()
    seen: set[_T] = set()
    waiting = list(starts)
    while waiting:
        each = waiting.pop()
        if each not in seen:
            seen.add(each)
            more = further(each)
            if more is not None:
                found.add(each)
                waiting += more
    return found
