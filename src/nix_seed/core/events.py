"""What a flow tells while it works: small frozen values to whoever listens, never printing.

A thread has a listener of its own: what starts one, and tells from it, takes ``listener`` along.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from nix_seed.core.values import dataclass

# Flows have event types of their own; whoever listens picks those it knows.
OnEvent = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Stage:
    """A new part of the work begins: *name* for programs, *text* for people.

    *steps* is how many things it will do, where that is known.
    """

    name: str
    text: str
    steps: int | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A server gave no usable answer, as *problem* says; it is asked again in *seconds*."""

    problem: str
    seconds: float


def ignore(event: Any) -> None:
    """Listen to nothing."""


_LISTENER: ContextVar[OnEvent] = ContextVar("listener", default=ignore)


@contextmanager
def listening(on_event: OnEvent) -> Iterator[None]:
    """Have ``tell`` call *on_event* in this thread; from others it may be called at any time."""
    token = _LISTENER.set(on_event)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def listener() -> OnEvent:
    """Return who listens here, for threads started from here."""
    return _LISTENER.get()


def tell(event: Any) -> None:
    """Tell *event* to whoever listens."""
    _LISTENER.get()(event)
