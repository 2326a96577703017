"""What a flow tells while it works: small frozen values to a callback, never printing.

What happens far below, where no callback is handed down (Nix at work), is told to whoever listens.
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


def ignore(event: Any) -> None:
    """Listen to nothing."""


_LISTENER: ContextVar[OnEvent] = ContextVar("listener", default=ignore)


@contextmanager
def listening(on_event: OnEvent) -> Iterator[None]:
    """Have ``tell`` call *on_event*, in this thread and what it awaits."""
    token = _LISTENER.set(on_event)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def tell(event: Any) -> None:
    """Tell *event* to whoever listens."""
    _LISTENER.get()(event)
