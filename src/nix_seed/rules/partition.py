"""Which store path lies in which layer (docs/decisions/0020-partition.md).

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
from nix_seed.rules.partition_assign import Atom, Layer, plan_layers
from nix_seed.rules.partition_chain import contract, line_up
from nix_seed.rules.partition_index import (
    ClosureIndex,
    Name,
    assign_tiers,
    build_index,
    by_name,
)
from nix_seed.rules.sticky import keep_layers

__all__ = ["DEFAULT_BUDGET", "MAX_BUDGET", "Group", "partition"]

DEFAULT_BUDGET = 64
# Docker refuses more than 127 layers; the container's own and a user's few come on top of these.
MAX_BUDGET = 120
# Above so many paths, neighbours are united first, to about so many atoms.
ONE_BY_ONE = 8192
CONTRACTED = 2048


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
    base: Sequence[Group] | None = None,
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
    tier_of = {name: number for number, (name, _) in enumerate(assigned)}
    atoms = [
        (index.paths[i], _atom(index, number, i))
        for number, (_, members) in enumerate(assigned)
        for i in members
    ]
    old = [(tier_of[group.tier], group.paths) for group in base or () if group.tier in tier_of]
    kept, new = keep_layers(atoms, old, budget, len(atoms))
    if not kept:
        new = _plan(index, [atom for _, atom in atoms], budget, len(atoms))
    layers = sorted([*kept, *sorted(new, key=_stability)], key=lambda layer: layer.tier)
    return tuple(_group(index, assigned[layer.tier][0], layer) for layer in layers)


def _plan(index: ClosureIndex, atoms: list[Atom], budget: int, paths: int) -> list[Layer]:
    if len(atoms) <= ONE_BY_ONE:
        return plan_layers(atoms, budget, paths)
    by_number = {atom.members[0]: atom for atom in atoms}
    tiers = sorted({atom.tier for atom in atoms})
    line = [
        by_number[i]
        for tier in tiers
        for i in line_up(index, (atom.members[0] for atom in atoms if atom.tier == tier))
    ]
    return plan_layers(contract(line, CONTRACTED), budget, paths)


def _stability(layer: Layer) -> tuple[int, Name]:
    """Least volatile first: engines unpack in order, and redo all that lies above a change."""
    return layer.atoms[0].count, layer.atoms[0].name


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
    closure = index.closures[i]
    name = by_name(index.paths[i])
    return Atom(tier, (i,), index.sizes[i], closure, closure.bit_count(), name)


def _group(index: ClosureIndex, tier: str, layer: Layer) -> Group:
    numbers = (i for atom in layer.atoms for i in atom.members)
    return Group(tier, tuple(sorted(index.paths[i] for i in numbers)))
