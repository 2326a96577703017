"""The table of attacks: what is done, and the one right answer to it.

A case prepares a world and stops; the runner then verifies. It passes only if exit code *and*
reason are right: a refusal for the wrong reason is a hole that happens to be covered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from support.trust import World

__all__ = ["CASES", "Case", "case"]


@dataclass(frozen=True, slots=True)
class Case:
    """An attack: *code* is the exit code wanted, *reason* a part of what must be printed."""

    name: str
    code: int
    reason: str
    prepare: Callable[[World], None]


CASES: dict[str, Case] = {}


def case(code: int, reason: str) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
    """Put a function of a world into the table, under its own name."""

    def put(prepare: Callable[[World], None]) -> Callable[[World], None]:
        name = prepare.__name__.replace("_", "-")
        assert name not in CASES, name
        CASES[name] = Case(name, code, reason, prepare)
        return prepare

    return put
