"""Each path to the layer where it costs least, or to a new one: the heart of the partition.

A layer of *size* bytes whose members' closures unite to *union* is pulled again whenever one path
of that union changes: its weight is ``size * |union|`` (bytes times paths; divided by the number of
paths of the closure it is the pull to expect after one random update). Putting a path into it adds

    size_path * (|union'| - |closure_path|) + size_layer * (|union'| - |union|)

which is never negative, and almost nothing where one of the two holds the other. Paths come by
size class (powers of two), largest first; one whose cheapest layer costs more than the *bar* opens
a layer. So a small path can never move a large one, and layers form around what is heavy.

Costs are reckoned against a *snapshot* of the layer: the path that opened it, not what has joined
since. So a path that joins changes nobody else's choice, and adding one to a closure changes one
layer. Only where crowds of equals gather is that too coarse; there the snapshot is taken anew
whenever the layer's weight has grown fourfold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nix_seed.flake.rules.names import Name

# What a layer must save to be worth having: bytes of expected pull after one random update.
LAYER_COST = 16 * 1024
# Snapshots are taken anew when a layer's weight has grown by this factor.
CROWDED = 4
# Fixed snapshots are kept where they cost at most one part in this many of the weight ...
TOLERANCE = 32
# ... which is tried for closures up to this many paths; larger ones are always crowded.
TRY_FIXED = 2048


@dataclass(frozen=True, slots=True)
class Atom:
    """Paths that stay together (mostly one): numbers, bytes, united closures, a name for ties."""

    tier: int
    members: tuple[int, ...]
    size: int
    union: int
    count: int
    name: Name


class Layer:
    """A layer as it fills. ``size``, ``union``, ``count`` are the snapshot that costs refer to."""

    __slots__ = ("all_size", "all_union", "atoms", "count", "size", "tier", "union")

    def __init__(self, tier: int, atoms: Iterable[Atom]) -> None:
        self.tier = tier
        self.atoms: list[Atom] = []
        self.all_size = self.all_union = 0
        for atom in atoms:
            self.add(atom)
        self.refresh()

    def copy(self) -> Layer:
        """Return a layer with the same contents and snapshot, to be filled on its own."""
        other = Layer(self.tier, ())
        other.atoms = list(self.atoms)
        other.all_size, other.all_union = self.all_size, self.all_union
        other.size, other.union, other.count = self.size, self.union, self.count
        return other

    def add(self, atom: Atom) -> None:
        """Take *atom* in; the snapshot stays as it was."""
        self.atoms.append(atom)
        self.all_size += atom.size
        self.all_union |= atom.union

    def refresh(self) -> None:
        """Take the snapshot anew."""
        self.size, self.union = self.all_size, self.all_union
        self.count = self.union.bit_count()

    @property
    def weight(self) -> int:
        """Bytes times paths, of all that is in it."""
        return self.all_size * self.all_union.bit_count()

    def cost(self, atom: Atom, limit: int) -> int:
        """Return what *atom* would add, or ``limit + 1`` for anything above *limit*."""
        more = self.count - atom.count
        least = atom.size * more if more > 0 else self.size * -more
        if least > limit:
            return limit + 1
        count = (self.union | atom.union).bit_count()
        return atom.size * (count - atom.count) + self.size * (count - self.count)


def in_order(atoms: Iterable[Atom]) -> list[Atom]:
    """Size classes from the largest; inside one, what reaches least first; then names."""
    return sorted(atoms, key=lambda atom: (-atom.size.bit_length(), atom.count, atom.name))


def assign(
    atoms: Sequence[Atom], bar: int, most: int, kept: Iterable[Layer] = (), *, fixed: bool = False
) -> list[Layer] | None:
    """Assign *atoms*, given ``in_order``, to the *kept* layers and new ones.

    None when that takes more than *most* new layers. *kept* layers are filled in place. With
    *fixed*, snapshots are never taken anew.
    """
    layers = list(kept)
    by_tier: dict[int, list[Layer]] = {}
    for layer in layers:
        by_tier.setdefault(layer.tier, []).append(layer)
    left = most
    for atom in atoms:
        best, chosen = bar + 1, None
        for layer in by_tier.get(atom.tier, ()):
            cost = layer.cost(atom, best - 1)
            if cost < best:
                best, chosen = cost, layer
        if chosen is not None:
            chosen.add(atom)
            if not fixed and chosen.weight > CROWDED * chosen.size * chosen.count:
                chosen.refresh()
            continue
        if left == 0:
            return None
        left -= 1
        layers.append(Layer(atom.tier, [atom]))
        by_tier.setdefault(atom.tier, []).append(layers[-1])
    return layers


def bars(paths: int, highest: int) -> list[int]:
    """Bars from above *highest* down to what a layer is worth among *paths* paths.

    They are powers of two and the middles between: on so coarse a grid a path more or less hardly
    ever changes the bar, and with it every layer.
    """
    lowest = LAYER_COST << (paths - 1).bit_length()
    exponents = range(lowest.bit_length(), highest.bit_length() + 1)
    grid = [lowest] + [bar for e in exponents for bar in (3 << (e - 2), 1 << e) if bar > lowest]
    return grid[::-1]


def plan_layers(atoms: Iterable[Atom], budget: int, paths: int) -> list[Layer]:
    """Assign *atoms* with the lowest bar on the grid that keeps within *budget* layers."""
    ordered = in_order(atoms)
    crowded = _lowest_bar(ordered, budget, paths, fixed=False)
    if paths > TRY_FIXED:
        return crowded
    fixed = _lowest_bar(ordered, budget, paths, fixed=True)
    weight = sum(layer.weight for layer in crowded)
    near = sum(layer.weight for layer in fixed) * TOLERANCE <= weight * (TOLERANCE + 1)
    return fixed if near else crowded


def _lowest_bar(ordered: Sequence[Atom], budget: int, paths: int, *, fixed: bool) -> list[Layer]:
    """Bisect the grid; its first bar always fits, since a tier's atoms then all join one layer."""
    grid = bars(paths, sum(atom.size for atom in ordered) * paths)
    fits, fails = 0, len(grid)
    result = assign(ordered, grid[0], budget, fixed=fixed) or []
    while fails - fits > 1:
        middle = (fits + fails) // 2
        layers = assign(ordered, grid[middle], budget, fixed=fixed)
        if layers is None:
            fails = middle
        else:
            fits, result = middle, layers
    return result
