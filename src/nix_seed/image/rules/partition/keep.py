"""A plan that keeps a previous image's layers: what need not move, does not.

Packages keep, by name, the layer they were in, whatever a fresh plan would say. Only what is new
is placed: into layers that change anyway where that is cheap, into layers of its own within the
budget, and into an unchanged layer only where the budget leaves no other.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from nix_seed.flake.rules.names import by_name
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.image.rules.partition.assign import Atom, Layer, assign, bars, in_order

Base = Sequence[tuple[int, Sequence[StorePath]]]


def keep_layers(
    atoms: Sequence[tuple[StorePath, Atom]], base: Base, budget: int, paths: int
) -> tuple[list[Layer], list[Layer]]:
    """Place *atoms*, one path each, on *base*: pairs of tier number and that layer's old paths.

    Returns the kept layers in base order, and the new ones; together at most *budget*. Both are
    empty where nothing of the base is left: a fresh plan is then as good.
    """
    slots = _match([path for path, _ in atoms], {path: a.tier for path, a in atoms}, base)
    if not slots:
        return [], []
    kept: dict[int, list[Atom]] = {n: [] for n in range(len(base))}
    same: dict[int, set[StorePath]] = {n: set() for n in range(len(base))}
    fresh = []
    for path, atom in atoms:
        if path in slots:
            kept[slots[path]].append(atom)
            same[slots[path]].add(path)
        else:
            fresh.append(atom)
    layers = [
        (Layer(tier, kept[n]), same[n] != set(old)) for n, (tier, old) in enumerate(base) if kept[n]
    ]
    new_tiers = {atom.tier for atom in fresh} - {layer.tier for layer, _ in layers}
    _make_room(layers, budget - len(new_tiers))
    return _place(in_order(fresh), layers, budget, paths)


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
    for key in (_itself, _name, _package):
        free: defaultdict[tuple[int, object], list[tuple[int, StorePath]]] = defaultdict(list)
        for tier, path in sorted(held, key=lambda slot: by_name(slot[1]), reverse=True):
            free[tier, key(path)].append((tier, path))
        for path in left:
            candidates = free.get((tier_of[path], key(path)))
            if candidates:
                slots[path] = held.pop(candidates.pop())
        left = [path for path in left if path not in slots]
    return slots


def _itself(path: StorePath) -> object:
    return path


def _name(path: StorePath) -> object:
    return path.name


def _package(path: StorePath) -> object:
    return path.package


def _make_room(layers: list[tuple[Layer, bool]], most: int) -> None:
    """Unite kept layers, cheapest pair first, when a smaller budget has no room for all."""
    while len(layers) > most:
        pairs = [
            (_united_cost(layers[i][0], layers[j][0]), i, j)
            for j in range(len(layers))
            for i in range(j)
            if layers[i][0].tier == layers[j][0].tier
        ]
        _, i, j = min(pairs)
        first, second = layers[i][0], layers.pop(j)[0]
        layers[i] = (Layer(first.tier, [*first.atoms, *second.atoms]), True)


def _united_cost(a: Layer, b: Layer) -> int:
    count = (a.union | b.union).bit_count()
    return a.size * (count - a.count) + b.size * (count - b.count)


def _place(
    fresh: Sequence[Atom], layers: Sequence[tuple[Layer, bool]], budget: int, paths: int
) -> tuple[list[Layer], list[Layer]]:
    """Place new paths with the lowest bar that fits, touching unchanged layers only at need."""
    everything = [layer for layer, _ in layers]
    if not fresh:
        return everything, []
    highest = sum(atom.size for layer in everything for atom in layer.atoms) + sum(
        atom.size for atom in fresh
    )
    grid = bars(paths, highest * paths)
    for only_changed in (True, False):
        for bar in reversed(grid):
            copies = [layer.copy() for layer in everything]
            open_to = [
                copy
                for copy, (_, changed) in zip(copies, layers, strict=True)
                if changed or not only_changed
            ]
            result = assign(fresh, bar, budget - len(copies), open_to)
            if result is not None:
                return copies, result[len(open_to) :]
    raise AssertionError("every tier has a layer, and the highest bar lets all join it")
