"""Divides a budget of layers among tiers.

The lowest tiers are partitioned on their own, each with a fixed share: what lies above, or another
project's seed, then cannot move a path in them. So a seed and a run image, and all the seeds of an
organisation on one nixpkgs, share those layers digest for digest.

Which store path lies in which layer (docs/decisions/0006-partition.md).

A layer is pulled again when anything in the union of its members' closures changes. The partition
keeps the expected pull after one random update small within a budget of layers; see
``docs/decisions/0006-partition.md`` for the objective, the measurements and what was not chosen.
Integers only: two builders reach the same layers on any machine.

A plan that keeps a previous image's layers: what need not move, does not.

Packages keep, by name, the layer they were in, whatever a fresh plan would say. Only what is new
is placed: into layers that change anyway where that is cheap, into layers of its own within the
budget, and into an unchanged layer only where the budget leaves no other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter

from nix_seed.core.errors import InputError
from nix_seed.core.values import dataclass
from nix_seed.flake.rules.names import Name, by_name
from nix_seed.formats.nix.store_path import PathInfo, StorePath, closure_in
from nix_seed.image.rules.partition import DEFAULT_BUDGET, assign

Base = Sequence[tuple[int, Sequence[StorePath]]]


def keep_layers(
    atoms: Sequence[tuple[StorePath, assign.Atom]], base: Base, budget: int, paths: int
) -> tuple[list[assign.Layer], list[assign.Layer]]:
    """Place *atoms*, one path each, on *base*: pairs of tier number and that layer's old paths.

    Returns the kept layers in base order, and the new ones; together at most *budget*. Both are
    empty where nothing of the base is left: a fresh plan is then as good.
    """
    slots = _match([path for path, _ in atoms], {path: a.tier for path, a in atoms}, base)
    if not slots:
        return [], []
    kept: dict[int, list[assign.Atom]] = {n: [] for n in range(len(base))}
    same: dict[int, set[StorePath]] = {n: set() for n in range(len(base))}
    fresh = []
    for path, atom in atoms:
        if path in slots:
            kept[slots[path]].append(atom)
            same[slots[path]].add(path)
        else:
            fresh.append(atom)
    layers = [
        (assign.Layer(tier, kept[n]), same[n] != set(old))
        for n, (tier, old) in enumerate(base)
        if kept[n]
    ]
    new_tiers = {atom.tier for atom in fresh} - {layer.tier for layer, _ in layers}
    _make_room(layers, budget - len(new_tiers))
    return _place(assign.in_order(fresh), layers, budget, paths)


def _match(
    paths: Iterable[StorePath], tier_of: Mapping[StorePath, int], base: Base
) -> dict[StorePath, int]:
    """Find each path's old layer: the path itself, else one of its name, else of its package."""
    held: dict[tuple[int, StorePath], int] = {}
    for n, (tier, old) in enumerate(base):
        for path in old:
            held.setdefault((tier, path), n)
    slots: dict[StorePath, int] = {}
    left = sorted(paths, key=by_name)
    keys: tuple[Callable[[StorePath], object], ...] = (
        lambda path: path,
        attrgetter("name"),
        attrgetter("package"),
    )
    for key in keys:
        free: defaultdict[tuple[int, object], list[tuple[int, StorePath]]] = defaultdict(list)
        for tier, path in sorted(held, key=lambda slot: by_name(slot[1]), reverse=True):
            free[tier, key(path)].append((tier, path))
        for path in left:
            candidates = free.get((tier_of[path], key(path)))
            if candidates:
                slots[path] = held.pop(candidates.pop())
        left = [path for path in left if path not in slots]
    return slots


def _make_room(layers: list[tuple[assign.Layer, bool]], most: int) -> None:
    """Unite kept layers, cheapest pair first, when a smaller budget has no room for all."""
    while len(layers) > most:
        pairs = [
            (assign.added(layers[i][0], layers[j][0]), i, j)
            for j in range(len(layers))
            for i in range(j)
            if layers[i][0].tier == layers[j][0].tier
        ]
        _, i, j = min(pairs)
        first, second = layers[i][0], layers.pop(j)[0]
        layers[i] = (assign.Layer(first.tier, [*first.atoms, *second.atoms]), True)


def _place(
    fresh: Sequence[assign.Atom],
    layers: Sequence[tuple[assign.Layer, bool]],
    budget: int,
    paths: int,
) -> tuple[list[assign.Layer], list[assign.Layer]]:
    """Place new paths with the lowest bar that fits, touching unchanged layers only at need."""
    everything = [layer for layer, _ in layers]
    if not fresh:
        return everything, []
    highest = sum(atom.size for layer in everything for atom in layer.atoms) + sum(
        atom.size for atom in fresh
    )
    grid = assign.bars(paths, highest * paths)
    for only_changed in (True, False):
        for bar in reversed(grid):
            copies = [layer.copy() for layer in everything]
            open_to = [
                copy
                for copy, (_, changed) in zip(copies, layers, strict=True)
                if changed or not only_changed
            ]
            result = assign.assign(fresh, bar, budget - len(copies), open_to)
            if result is not None:
                return copies, result[len(open_to) :]
    raise AssertionError("every tier has a layer, and the highest bar lets all join it")


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
        own = closure_in(closure, [root for _, roots in part for root in roots]) - below
        remaining = {path: closure[path] for path in own}
        roots = [(name, [path for path in paths if path not in below]) for name, paths in part]
        # A root that lies in a lower tier is at hand already; what it leads to is as well.
        groups += partition(remaining, roots, budget=share, base=base, absent=below)
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
    budget that is below the number of tiers that hold something.
    """
    index = assign.build_index(closure, absent)
    assigned = assign.assign_tiers(index, tiers)
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
    groups = []
    for layer in layers:
        paths = sorted(index.paths[i] for atom in layer.atoms for i in atom.members)
        groups.append(Group(assigned[layer.tier][0], tuple(paths)))
    return tuple(groups)


def _plan(
    index: assign.ClosureIndex, atoms: list[assign.Atom], budget: int, paths: int
) -> list[assign.Layer]:
    if len(atoms) <= ONE_BY_ONE:
        return assign.plan_layers(atoms, budget, paths)
    by_number = {atom.members[0]: atom for atom in atoms}
    tiers = sorted({atom.tier for atom in atoms})
    line = [
        by_number[i]
        for tier in tiers
        for i in assign.line_up(index, (atom.members[0] for atom in atoms if atom.tier == tier))
    ]
    return assign.plan_layers(assign.contract(line, CONTRACTED), budget, paths)


def _stability(layer: assign.Layer) -> tuple[int, Name]:
    """Least volatile first: engines unpack in order, and redo all that lies above a change."""
    return layer.atoms[0].count, layer.atoms[0].name


def _check_budget(budget: int, assigned: Sequence[tuple[str, object]]) -> None:
    if budget < max(1, len(assigned)):
        names = ", ".join(name for name, _ in assigned)
        raise InputError(
            f"a budget of {budget} layers cannot hold {len(assigned)} tiers ({names}),"
            " since no layer holds two",
            hint=f"ask for at least {max(1, len(assigned))}",
        )


def _atom(index: assign.ClosureIndex, tier: int, i: int) -> assign.Atom:
    closure = index.closures[i]
    name = by_name(index.paths[i])
    return assign.Atom(tier, (i,), index.sizes[i], closure, closure.bit_count(), name)
