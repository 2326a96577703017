"""What a consumer of a previous image must pull for a new one, and who caused it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.rules.culprits import Culprit, find_culprits
from nix_seed.rules.package_changes import PackageChange, match_packages
from nix_seed.rules.partition import Group

__all__ = ["Culprit", "LayerChange", "PackageChange", "PlanDiff", "evaluate_plan"]

Closure = Mapping[StorePath, PathInfo]


@dataclass(frozen=True, slots=True)
class LayerChange:
    """One layer of the new plan against the old one; ``size`` is the sum of NAR sizes in bytes.

    ``was`` is the number of the old layer, of the same tier, that it shares most bytes with (names
    count where bytes changed), or None. ``changes`` are the paths that are new or replaced here,
    and those gone from the old layer; ``moved`` are unchanged paths that lay in another layer.
    """

    tier: str
    paths: tuple[StorePath, ...]
    size: int
    reused: bool
    was: int | None
    changes: tuple[PackageChange, ...]
    moved: tuple[StorePath, ...]


@dataclass(frozen=True, slots=True)
class PlanDiff:
    """The new plan's layers in order, every change, and the culprits, dearest first.

    ``pull_bytes`` is the size of all layers that are not reused, ``total_bytes`` of all layers.
    """

    layers: tuple[LayerChange, ...]
    changes: tuple[PackageChange, ...]
    culprits: tuple[Culprit, ...]
    pull_bytes: int
    total_bytes: int

    @property
    def pulled_layers(self) -> int:
        """How many layers a consumer of the old image must pull."""
        return sum(not layer.reused for layer in self.layers)


def evaluate_plan(
    new: Sequence[Group],
    old: Sequence[Group],
    closure: Closure,
    old_closure: Closure,
    roots_by_cause: Mapping[str, Sequence[StorePath]] | None = None,
    *,
    changed_causes: Collection[str] = (),
) -> PlanDiff:
    """Compare the plan *new* of *closure* with the plan *old* of *old_closure*.

    *roots_by_cause* says which store paths a named cause (a flake input, a package, a root) stands
    for; it accounts for what those paths reach as well. *changed_causes* are the names known to
    have changed, such as inputs whose narHash differs. A layer is reused when its set of (path, NAR
    hash) is that of an old layer.
    """
    changes = match_packages(closure, old_closure)
    layers = tuple(_compare_layers(new, old, closure, old_closure, changes))
    pulled = {n: layer.size for n, layer in enumerate(layers) if not layer.reused}
    culprits = find_culprits(
        changes=changes,
        closure=closure,
        layer_of={path: n for n, layer in enumerate(layers) for path in layer.paths},
        pulled=pulled,
        roots_by_cause=roots_by_cause or {},
        changed_causes=frozenset(changed_causes),
    )
    everyone = tuple(sorted([*culprits, *_removals(layers)], key=lambda c: -c.pull_bytes))
    total = sum(layer.size for layer in layers)
    return PlanDiff(layers, changes, everyone, sum(pulled.values()), total)


def _removals(layers: Sequence[LayerChange]) -> list[Culprit]:
    """What went away is the culprit of a layer in which nothing came or changed."""
    layers_of: defaultdict[PackageChange, list[int]] = defaultdict(list)
    for n, layer in enumerate(layers):
        if not layer.reused and all(change.new is None for change in layer.changes):
            for change in layer.changes:
                layers_of[change].append(n)
    return [
        Culprit(
            cause=None,
            cause_changed=False,
            roots=(change,),
            dependents=(),
            path_bytes=0,
            layers=tuple(numbers),
            pull_bytes=sum(layers[n].size for n in numbers),
        )
        for change, numbers in layers_of.items()
    ]


def _compare_layers(
    new: Sequence[Group],
    old: Sequence[Group],
    closure: Closure,
    old_closure: Closure,
    changes: Sequence[PackageChange],
) -> list[LayerChange]:
    old_contents = {_contents(group, old_closure) for group in old}
    came = {change.new: change for change in changes if change.new is not None}
    gone = {change.old: change for change in changes if change.new is None}
    lay_in = {path: n for n, group in enumerate(old) for path in group.paths}
    result = []
    for group in new:
        was = _counterpart(group, old, closure, came, lay_in)
        before = old[was].paths if was is not None else ()
        own = [came[path] for path in group.paths if path in came]
        lost = [gone[path] for path in before if path in gone]
        moved = [p for p in group.paths if p not in came and lay_in.get(p) != was]
        result.append(
            LayerChange(
                tier=group.tier,
                paths=group.paths,
                size=sum(closure[path].nar_size for path in group.paths),
                reused=_contents(group, closure) in old_contents,
                was=was,
                changes=(*own, *lost),
                moved=tuple(moved),
            )
        )
    return result


def _contents(group: Group, closure: Closure) -> frozenset[tuple[StorePath, str]]:
    return frozenset((path, closure[path].nar_hash.hex) for path in group.paths)


def _counterpart(
    group: Group,
    old: Sequence[Group],
    closure: Closure,
    came: Mapping[StorePath, PackageChange],
    lay_in: Mapping[StorePath, int],
) -> int | None:
    """The old layer of this tier that held most of the group's bytes, the first of equals."""
    shared: defaultdict[int, int] = defaultdict(int)
    for path in group.paths:
        before = came[path].old if path in came else path
        number = lay_in.get(before) if before is not None else None
        if number is not None and old[number].tier == group.tier:
            shared[number] += closure[path].nar_size + 1
    return min(shared, key=lambda n: (-shared[n], n), default=None)
