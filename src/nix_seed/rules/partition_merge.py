"""Greedy merging: the pair of groups that costs least to put into one layer, again and again.

A group of *size* bytes whose members' closures unite to *union* is pulled again whenever one path
of that union changes: its weight is ``size * |union|`` (bytes times paths; over the closure's
number of paths it is the expected pull after one random update). Merging two groups adds

    size_a * (|union| - |union_a|) + size_b * (|union| - |union_b|)

which is never negative, and nearly nothing where one union holds the other.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Atom", "merge"]


@dataclass(frozen=True, slots=True)
class Atom:
    """Paths that stay together: their numbers, bytes, united closures, and a name for ties."""

    tier: int
    members: tuple[int, ...]
    size: int
    union: int
    name: tuple[str, str, str]


def merge(atoms: Sequence[Atom], budget: int, layer_cost: int) -> list[Atom]:
    """Merge inside tiers until at most *budget* are left and every further merge costs too much.

    A merge is too dear above *layer_cost* (bytes times paths). When the budget forces a dearer one,
    the bar rises to the next power of two and stays there, so that a path more or less does not
    decide how far merging goes.
    """
    live: dict[int, Atom] = dict(enumerate(sorted(atoms, key=lambda atom: atom.name)))
    counts = {i: atom.union.bit_count() for i, atom in live.items()}
    heap = [
        (_added(live[i], counts[i], live[j], counts[j]), i, j)
        for j in live
        for i in range(j)
        if live[i].tier == live[j].tier
    ]
    heapq.heapify(heap)
    bar, following = layer_cost, len(live)
    while heap:
        added, i, j = heapq.heappop(heap)
        if i not in live or j not in live:
            continue
        if added > bar:
            if len(live) <= budget:
                break
            bar = 1 << (added - 1).bit_length()
        new = _united(live.pop(i), live.pop(j))
        count = new.union.bit_count()
        for k, other in live.items():
            if other.tier == new.tier:
                heapq.heappush(heap, (_added(other, counts[k], new, count), k, following))
        live[following], counts[following] = new, count
        following += 1
    return list(live.values())


def _added(a: Atom, count_a: int, b: Atom, count_b: int) -> int:
    count = (a.union | b.union).bit_count()
    return a.size * (count - count_a) + b.size * (count - count_b)


def _united(a: Atom, b: Atom) -> Atom:
    leader = a if (a.size, b.name) >= (b.size, a.name) else b
    return Atom(a.tier, a.members + b.members, a.size + b.size, a.union | b.union, leader.name)
