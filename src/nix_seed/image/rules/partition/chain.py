"""Thousands of paths made a few hundred atoms, by merging neighbours along one line.

Every path has a main reference: the one that reaches most. Main references make a forest, and
walking it depth first lays paths with nearly the same closure next to each other. Where a path
stands in that line follows from what it reaches alone, so another path in the closure shifts
nothing; and merging only neighbours keeps what the other path does to its own surroundings.
"""

import heapq
from collections.abc import Iterable, Sequence

from nix_seed.flake.rules.names import by_name
from nix_seed.image.rules.partition.assign import Atom
from nix_seed.image.rules.partition.closure import ClosureIndex


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
            cost = _added(live[i], live[j])
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


def _added(a: Atom, b: Atom) -> int:
    count = (a.union | b.union).bit_count()
    return a.size * (count - a.count) + b.size * (count - b.count)


def united(a: Atom, b: Atom) -> Atom:
    """Return both as one, named after the larger."""
    name = max((a.size, a.name), (b.size, b.name))[1]
    union = a.union | b.union
    return Atom(a.tier, a.members + b.members, a.size + b.size, union, union.bit_count(), name)
