"""How other tools divide a closure into layers, and what a division costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.image.rules.partition.assign import build_index, members
from nix_seed.image.rules.partition.plan import Group

Closure = Mapping[StorePath, PathInfo]


def by_popularity(closure: Closure, layers: int) -> tuple[Group, ...]:
    """What most paths reach gets a layer each; all else shares the last (dockerTools' way)."""
    index = build_index(closure)
    reached_by = [0] * len(index.paths)
    for bits in index.closures:
        for i in members(bits):
            reached_by[i] += 1
    ranked = sorted(range(len(reached_by)), key=lambda i: (-reached_by[i], index.paths[i]))
    return _singles([index.paths[i] for i in ranked], layers)


def by_size(closure: Closure, layers: int) -> tuple[Group, ...]:
    """The largest paths get a layer each; all else shares the last."""
    return _singles(sorted(closure, key=lambda path: (-closure[path].nar_size, path)), layers)


def _singles(ranked: Sequence[StorePath], layers: int) -> tuple[Group, ...]:
    alone, rest = ranked[: layers - 1], ranked[layers - 1 :]
    groups = [Group("", (path,)) for path in alone]
    return tuple(groups + ([Group("", tuple(sorted(rest)))] if rest else []))


def expected_pull(groups: Sequence[Group], closure: Closure) -> int:
    """Bytes to pull, on average, after one path, each as likely as any, was updated."""
    index = build_index(closure)
    total = 0
    for group in groups:
        union = size = 0
        for path in group.paths:
            number = index.number[path]
            union |= index.closures[number]
            size += index.sizes[number]
        total += size * union.bit_count()
    return total // max(1, len(index.paths))


def bound(closure: Closure) -> int:
    """The expected pull if every path were a layer of its own: no division does better."""
    index = build_index(closure)
    total = sum(
        size * bits.bit_count() for size, bits in zip(index.sizes, index.closures, strict=True)
    )
    return total // max(1, len(index.paths))
