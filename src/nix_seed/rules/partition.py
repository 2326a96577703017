"""Which store path lies in which layer (design section 4).

A layer is pulled again when anything in the union of its members' closures changes. The partition
keeps the expected pull after one random update small within a budget of layers; see
``docs/decisions/0020-partition.md`` for the objective, the measurements and what was not chosen.
Integers only: two builders reach the same layers on any machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.ground.errors import InputError
from nix_seed.rules.partition_index import ClosureIndex, assign_tiers, build_index, by_name
from nix_seed.rules.partition_merge import Atom, merge

__all__ = ["DEFAULT_BUDGET", "MAX_BUDGET", "Group", "partition"]

DEFAULT_BUDGET = 64
# Docker refuses more than 127 layers; the container's own and a user's few come on top of these.
MAX_BUDGET = 120


@dataclass(frozen=True, slots=True)
class Group:
    """The store paths of one layer, sorted, and the tier they belong to."""

    tier: str
    paths: tuple[StorePath, ...]


def partition(
    closure: Mapping[StorePath, PathInfo],
    tiers: Sequence[tuple[str, Sequence[StorePath]]],
    *,
    budget: int = DEFAULT_BUDGET,
    base: Sequence[Group] | None = None,  # noqa: ARG001
    absent: frozenset[StorePath] = frozenset(),
) -> tuple[Group, ...]:
    """Divide *closure* into at most *budget* groups, one a layer, in the order of *tiers*.

    *tiers* pairs each tier's name with its root paths; a path belongs to the first tier whose roots
    reach it. *base* is the partition of a previous image: packages keep, by name, the layer they
    were in. *absent* are paths that may be referred to though they are not in the closure
    (withheld for their licence). *budget* does not count the container's own last layer.

    The result depends on the arguments' contents, never on the order of a mapping or of roots.
    Raises ``InputError`` for references out of the closure, paths that no tier reaches, and a
    budget that is above ``MAX_BUDGET`` or below the number of tiers that hold something.
    """
    index = build_index(closure, absent)
    assigned = assign_tiers(index, tiers)
    _check_budget(budget, assigned)
    atoms = [_atom(index, t, i) for t, (_, own) in enumerate(assigned) for i in own]
    groups = merge(atoms, budget, 0)
    return tuple(_group(index, assigned, atom) for atom in sorted(groups, key=lambda a: a.tier))


def _check_budget(budget: int, assigned: Sequence[tuple[str, object]]) -> None:
    if budget > MAX_BUDGET:
        raise InputError(
            f"a budget of {budget} layers is above {MAX_BUDGET}, which engines accept at most",
            hint=f"ask for {MAX_BUDGET} or fewer; {DEFAULT_BUDGET} is the default",
        )
    if budget < max(1, len(assigned)):
        names = ", ".join(name for name, _ in assigned)
        raise InputError(
            f"a budget of {budget} layers cannot hold {len(assigned)} tiers ({names}),"
            " since no layer holds two",
            hint=f"ask for at least {max(1, len(assigned))}",
        )


def _atom(index: ClosureIndex, tier: int, i: int) -> Atom:
    return Atom(tier, (i,), index.sizes[i], index.closures[i], by_name(index.paths[i]))


def _group(index: ClosureIndex, assigned: Sequence[tuple[str, object]], atom: Atom) -> Group:
    return Group(assigned[atom.tier][0], tuple(sorted(index.paths[i] for i in atom.members)))
