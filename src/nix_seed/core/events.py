"""What a flow tells while it works: small frozen values to a callback, never printing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
