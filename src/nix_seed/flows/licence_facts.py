"""Asks Nix what ``meta`` says of an image's derivations, wherever it can be read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from nix_seed.clients.nix import Nix
from nix_seed.flows.nix_half import call_nix_half
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.ground.errors import NixFailed
from nix_seed.rules.licence import Fact, read_facts
from nix_seed.rules.roots import Roots

__all__ = ["facts_of"]

# A dozen tell one broken package from some hundred others.
_EVALUATIONS = 12


def facts_of(
    nix: Nix, url: str, arguments: Mapping[str, Any], closure: Collection[StorePath], roots: Roots
) -> tuple[dict[str, Fact], str | None]:
    """Return what ``meta`` says, by derivation, and why something could not be read, if so.

    *arguments* are those by which the flake at *url* was evaluated, for an image of *closure*. What
    is no value anywhere in it is looked for among the packages of all flakes that it has.
    """
    names = sorted({name for path in closure for name in (path.package, path.name)})
    facts, problem = _facts(nix, url, arguments, names)
    unread = _unread(closure, roots, facts)
    if unread:
        facts |= _facts_elsewhere(nix, url, arguments["system"], unread, roots)
    return facts, problem


def _facts(
    nix: Nix, url: str, arguments: Mapping[str, Any], names: Sequence[str]
) -> tuple[dict[str, Fact], str | None]:
    """Ask the Nix half; where some package's own code aborts, ask for less, at last for nothing."""
    problem = None
    for wanted in (names, ()):
        try:
            given = {**arguments, "names": list(wanted)}
            answer = call_nix_half(nix, "licences", url, given, "reading licences")
            return read_facts(answer), problem
        except NixFailed as error:
            problem = error.detail or error.message
    return {}, problem


def _unread(
    closure: Iterable[StorePath], roots: Roots, facts: Mapping[str, Fact]
) -> set[StorePath]:
    """Return derivations of *closure* whose ``meta`` is in no fact, and such of their inputs."""
    found: set[StorePath] = set()
    stack = [roots.makers[path] for path in closure if path in roots.makers]
    while stack:
        drv = stack.pop()
        if drv in roots.inputs and drv not in found and str(drv) not in facts:
            found.add(drv)
            stack += roots.inputs[drv].derivations
    return found


def _facts_elsewhere(
    nix: Nix, url: str, system: str, unread: Iterable[StorePath], roots: Roots
) -> dict[str, Fact]:
    """Look for *unread* among the packages of all flakes that there are, for a few evaluations.

    What does not evaluate is left out, and so is what is not of this graph: a namesake.
    """
    made = {StorePath(drv.base_name.removesuffix(".drv")) for drv in unread}
    names = sorted({name for path in made for name in (path.package, path.name)})
    given = {"system": system, "names": names}
    ask = partial(call_nix_half, nix, "otherPackages", url, doing="reading licences elsewhere")
    facts: dict[str, Fact] = {}
    left: list[list[Any]] = []
    for evaluation in range(_EVALUATIONS):
        some = left.pop() if left else []
        try:
            if evaluation == 0:
                left = [ask(given)]
            elif some:
                facts |= read_facts(ask({**given, "some": some}))
        except NixFailed:
            half = len(some) // 2
            left += [some[half:], some[:half]] if half else []
    graph = {str(drv) for drv in roots.via}
    return {drv: fact for drv, fact in facts.items() if drv in graph}
