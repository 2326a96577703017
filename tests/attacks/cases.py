"""The table of attacks: what is done, and the one right answer to it.

A case prepares a world and stops; the runner then asks the command itself, which is ``verify`` if
the world says nothing else. It passes only if exit code *and* reason are right: a refusal for the
wrong reason is a hole that happens to be covered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.trust import World

__all__ = ["CASES", "Case", "case", "enter"]


@dataclass(frozen=True, slots=True)
class Case:
    """An attack on a world that *make* makes, asked about by *command*.

    *code* is the exit code wanted, *reason* a part of what must be printed.
    """

    name: str
    code: int
    reason: str
    prepare: Callable[[Any], None]
    make: Callable[[Path], Any]
    command: Callable[[Any], list[str]]


CASES: dict[str, Case] = {}


def enter(
    code: int,
    reason: str,
    prepare: Callable[[Any], None],
    make: Callable[[Path], Any],
    command: Callable[[Any], list[str]],
) -> None:
    """Put *prepare* into the table, under its own name."""
    name = prepare.__name__.replace("_", "-")
    assert name not in CASES, name
    CASES[name] = Case(name, code, reason, prepare, make, command)


def case(code: int, reason: str) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
    """Put a function of a world, whose one image is then verified, into the table."""

    def put(prepare: Callable[[World], None]) -> Callable[[World], None]:
        enter(code, reason, prepare, World.fresh, _verify)
        return prepare

    return put


def _verify(world: World) -> list[str]:
    policy = str(world.write_policy())
    return ["verify", world.reference, "--policy", policy, *world.arguments]
