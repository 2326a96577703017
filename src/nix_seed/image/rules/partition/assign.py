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

A closure as numbers: bit sets of what each path needs, sizes, and a tier for every path.

Bit *i* of a set stands for ``paths[i]``; references come before what refers to them, so the sets of
a closure's foundations are short integers.

Thousands of paths made a few hundred atoms, by merging neighbours along one line.

Every path has a main reference: the one that reaches most. Main references make a forest, and
walking it depth first lays paths with nearly the same closure next to each other. Where a path
stands in that line follows from what it reaches alone, so another path in the closure shifts
nothing; and merging only neighbours keeps what the other path does to its own surroundings.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence

from nix_seed.core.errors import InputError
from nix_seed.core.values import dataclass
from nix_seed.flake.rules.names import Name, by_name
from nix_seed.formats.nix.store_path import PathInfo, StorePath

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


def members(bits: int) -> list[int]:
    """Return the numbers of the bits that are set, lowest first."""
    text = bin(bits)[:1:-1]
    found, at = [], text.find("1")
    while at >= 0:
        found.append(at)
        at = text.find("1", at + 1)
    return found


@dataclass(frozen=True, slots=True)
class ClosureIndex:
    """``closures[i]`` is the bit set of everything ``paths[i]`` reaches, itself included.

    ``sizes`` are NAR sizes in bytes; ``references`` leave out self references.
    """

    paths: tuple[StorePath, ...]
    sizes: tuple[int, ...]
    closures: tuple[int, ...]
    references: tuple[tuple[int, ...], ...]
    number: Mapping[StorePath, int]


def build_index(
    closure: Mapping[StorePath, PathInfo], absent: frozenset[StorePath] = frozenset()
) -> ClosureIndex:
    """Number the paths, references first, and take the transitive closure.

    Raises ``InputError`` for a reference that lies neither in *closure* nor in *absent*, and for a
    cycle of references, which no Nix store can hold.
    """
    references = _references(closure, absent)
    order = references_first(references)
    number = {path: i for i, path in enumerate(order)}
    closures: list[int] = []
    for i, path in enumerate(order):
        bits = 1 << i
        for reference in references[path]:
            bits |= closures[number[reference]]
        closures.append(bits)
    sizes = tuple(closure[path].nar_size for path in order)
    inside = tuple(tuple(number[r] for r in references[path]) for path in order)
    return ClosureIndex(tuple(order), sizes, tuple(closures), inside, number)


def _references(
    closure: Mapping[StorePath, PathInfo], absent: frozenset[StorePath]
) -> dict[StorePath, list[StorePath]]:
    """Each path's references inside the closure, without itself; in the order of ties."""
    names = {path: by_name(path) for path in closure}
    result = {}
    for path in sorted(closure, key=names.__getitem__):
        inside = []
        for reference in closure[path].references:
            if reference in names:
                if reference != path:
                    inside.append(reference)
            elif reference not in absent and reference != path:
                raise InputError(
                    f"{path} refers to {reference}, which is not in the closure",
                    hint="plan the whole closure: nix path-info --recursive lists it",
                )
        result[path] = sorted(inside, key=names.__getitem__)
    return result


def references_first(references: Mapping[StorePath, Sequence[StorePath]]) -> list[StorePath]:
    """Order all paths so that each comes after its *references*, which hold no path itself.

    Depth first, without recursion: a chain of references may be thousands long.
    """
    order: list[StorePath] = []
    done: dict[StorePath, bool] = {}  # False while a path is being walked, True afterwards
    for root in references:
        if root in done:
            continue
        done[root] = False
        walk = [(root, iter(references[root]))]
        while walk:
            path, rest = walk[-1]
            for reference in rest:
                if reference not in done:
                    done[reference] = False
                    walk.append((reference, iter(references[reference])))
                    break
                if not done[reference]:
                    raise InputError(f"{path} and {reference} refer to each other in a cycle")
            else:
                done[path] = True
                order.append(path)
                walk.pop()
    return order


def assign_tiers(
    index: ClosureIndex, tiers: Sequence[tuple[str, Sequence[StorePath]]]
) -> list[tuple[str, list[int]]]:
    """Give each path to the first tier whose roots reach it; tiers left empty are dropped."""
    names = [name for name, _ in tiers]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"tier {twice[0]!r} is given twice")
    taken, result = 0, []
    for name, roots in tiers:
        reached = 0
        for root in roots:
            if root not in index.number:
                raise InputError(f"{root}, a root of tier {name!r}, is not in the closure")
            reached |= index.closures[index.number[root]]
        own = members(reached & ~taken)
        taken |= reached
        if own:
            result.append((name, own))
    left = ((1 << len(index.paths)) - 1) & ~taken
    if left:
        first = min((index.paths[i] for i in members(left)), key=by_name)
        raise InputError(
            f"no tier reaches {first} ({left.bit_count()} such paths in the closure)",
            hint="add it to the roots of a tier, or leave it out of the closure",
        )
    return result


def line_up(index: ClosureIndex, own: Iterable[int]) -> list[int]:
    """Return the paths *own* of one tier in the forest's depth-first order."""
    counts = [closure.bit_count() for closure in index.closures]
    keys = {i: (counts[i], by_name(index.paths[i])) for i in own}
    children: dict[int, list[int]] = {}
    for i in keys:
        inside = [r for r in index.references[i] if r in keys]
        main = max(inside, key=keys.__getitem__, default=-1)
        children.setdefault(main, []).append(i)
    order: list[int] = []
    walk = [-1]
    while walk:
        at = walk.pop()
        if at >= 0:
            order.append(at)
        walk += sorted(children.get(at, ()), key=keys.__getitem__, reverse=True)
    return order


def contract(line: Sequence[Atom], most: int) -> list[Atom]:
    """Merge neighbours, cheapest first, until *most* are left and the bar is reached.

    The dearest merge made is rounded up to a power of two, and every merge up to that bar is made
    as well, so that a path more or less does not decide how far merging goes. Neighbours of
    different tiers stay apart.
    """
    if len(line) <= most:
        return list(line)
    live = dict(enumerate(line))
    before = {i: i - 1 for i in live}
    after = {i: i + 1 for i in live}
    versions = [0] * len(line)
    heap: list[tuple[int, int, int, int, int]] = []

    def offer(i: int) -> None:
        j = after[i]
        if i in live and j in live and live[i].tier == live[j].tier:
            cost = added(live[i], live[j])
            heapq.heappush(heap, (cost, i, j, versions[i], versions[j]))

    for i in range(len(line)):
        offer(i)
    bar = 0
    while heap:
        cost, i, j, version_i, version_j = heapq.heappop(heap)
        if j not in live or versions[i] != version_i or versions[j] != version_j:
            continue
        if cost > bar:
            if len(live) <= most:
                break
            bar = 1 << (cost - 1).bit_length()
        live[i] = united(live[i], live.pop(j))
        versions[i] += 1
        versions[j] += 1
        after[i] = after[j]
        before[after[j]] = i
        offer(i)
        if before[i] in live:
            offer(before[i])
    return list(live.values())


def added(a: Atom | Layer, b: Atom | Layer) -> int:
    """Return what uniting the two adds to their weights."""
    count = (a.union | b.union).bit_count()
    return a.size * (count - a.count) + b.size * (count - b.count)


def united(a: Atom, b: Atom) -> Atom:
    """Return both as one, named after the larger."""
    name = max((a.size, a.name), (b.size, b.name))[1]
    union = a.union | b.union
    return Atom(a.tier, a.members + b.members, a.size + b.size, union, union.bit_count(), name)
