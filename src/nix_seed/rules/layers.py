"""Divides a budget of layers among tiers.

The lowest tiers are partitioned on their own, each with a fixed share: what lies above, or another
project's seed, then cannot move a path in them. So a seed and a run image, and all the seeds of an
organisation on one nixpkgs, share those layers digest for digest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.ground.errors import InputError
from nix_seed.rules.partition import MAX_BUDGET, Group, partition

__all__ = ["MIN_BUDGET", "check_budget", "divide"]

Roots = Sequence[tuple[str, Sequence[StorePath]]]
Closure = Mapping[StorePath, PathInfo]

# In 64ths of the budget: base and toolchain; the other tiers share the rest.
_SHARES = {"base": 6, "toolchain": 18}
_WHOLE = 64

# One layer for each tier there can be.
MIN_BUDGET = 8


def check_budget(budget: int) -> None:
    """Raise ``InputError`` unless *budget* is from ``MIN_BUDGET`` to ``MAX_BUDGET`` layers."""
    if not MIN_BUDGET <= budget <= MAX_BUDGET:
        raise InputError(
            f"{budget} layers cannot be asked for",
            hint=f"choose from {MIN_BUDGET} to {MAX_BUDGET} (--layers); 40 to 70 suit most images",
        )


def divide(
    closure: Closure, tiers: Roots, budget: int, base: Sequence[Group] | None = None
) -> tuple[Group, ...]:
    """Partition *closure* into at most *budget* groups, in the order of *tiers*.

    *base* are the groups of a previous image. Raises ``InputError`` for a budget below
    ``MIN_BUDGET`` or above ``MAX_BUDGET``, and for a closure that is not exactly the tiers'.
    """
    check_budget(budget)
    below: frozenset[StorePath] = frozenset()
    groups: list[Group] = []
    for part, share in _shares(tiers, budget):
        own = _reach(closure, [root for _, roots in part for root in roots]) - below
        remaining = {path: closure[path] for path in own}
        roots = [(name, [path for path in paths if path not in below]) for name, paths in part]
        # A root that lies in a lower tier is at hand already; what it leads to is as well.
        groups += partition(remaining, roots, budget=share, base=_of(base, part), absent=below)
        below |= own
    if len(below) != len(closure):
        raise InputError(f"no tier reaches {min(closure.keys() - below)}, a path of the closure")
    return tuple(groups)


def _shares(tiers: Roots, budget: int) -> list[tuple[Roots, int]]:
    alone = [
        ([tier], max(1, budget * _SHARES[tier[0]] // _WHOLE))
        for tier in tiers
        if tier[0] in _SHARES
    ]
    rest = [tier for tier in tiers if tier[0] not in _SHARES]
    return [*alone, (rest, budget - sum(share for _, share in alone))]


def _of(base: Sequence[Group] | None, part: Roots) -> list[Group] | None:
    if base is None:
        return None
    names = {name for name, _ in part}
    return [group for group in base if group.tier in names]


def _reach(closure: Closure, roots: Sequence[StorePath]) -> frozenset[StorePath]:
    # A path out of the closure is for ``partition`` to refuse.
    seen: set[StorePath] = set()
    stack = list(roots)
    while stack:
        path = stack.pop()
        if path in closure and path not in seen:
            seen.add(path)
            stack.extend(closure[path].references)
    return frozenset(seen)
