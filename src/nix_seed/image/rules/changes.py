"""What a consumer of a previous image must pull for a new one, and who caused it.

Causes are the deepest paths that differ, and the named inputs that they belong to.

How two builders' words, or two images, differ: in which layers, store paths, NAR hashes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from nix_seed.core.digests import NarHash
from nix_seed.core.values import dataclass
from nix_seed.flake.rules.names import PackageChange, by_name, match_packages
from nix_seed.formats.intoto.statement import Agreement, LayerDigests
from nix_seed.formats.nix.store_path import PathInfo, StorePath, closure_in
from nix_seed.image.rules.partition.plan import Group

if TYPE_CHECKING:
    from nix_seed.image.rules.spec import Spec

Closure = Mapping[StorePath, PathInfo]


@dataclass(frozen=True, slots=True)
class Culprit:
    """A root of change, or all roots that belong to one changed cause, and what they drag along.

    ``cause`` names the input, package or root they belong to (None: none that was given);
    ``cause_changed`` says that it is one of those known to have changed. ``roots`` changed although
    nothing they refer to did; ``dependents`` changed and reach a root. ``path_bytes`` are the NAR
    sizes of both. ``layers`` are the numbers of the new plan's layers to pull that hold any of
    them and ``pull_bytes`` those layers' sizes: a layer with two culprits counts under each.

    A package that went away (its root has ``new`` None) is named where nothing else accounts for a
    layer; a layer that only exchanged unchanged paths has no culprit.
    """

    cause: str | None
    cause_changed: bool
    roots: tuple[PackageChange, ...]
    dependents: tuple[PackageChange, ...]
    path_bytes: int
    layers: tuple[int, ...]
    pull_bytes: int


def find_culprits(
    *,
    changes: Sequence[PackageChange],
    closure: Closure,
    layer_of: Mapping[StorePath, int],
    pulled: Mapping[int, int],
    roots_by_cause: Mapping[str, Sequence[StorePath]],
    changed_causes: frozenset[str],
) -> tuple[Culprit, ...]:
    """Attribute every path that came or changed to the roots of change below it.

    *pulled* maps the numbers of the layers to pull to their sizes. Roots of one changed cause make
    one culprit; any other root makes its own. The dearest comes first.
    """
    came = {change.new: change for change in changes if change.new is not None}
    roots_of = _roots_of(came, closure)
    roots = sorted({root for found in roots_of.values() for root in found}, key=by_name)
    causes = _causes(roots, closure, roots_by_cause, changed_causes)
    grouped: defaultdict[tuple[str, str], set[StorePath]] = defaultdict(set)
    for root in roots:
        cause = causes.get(root)
        grouped[("", cause) if cause in changed_causes else (root.base_name, "")].add(root)
    above: defaultdict[StorePath, set[StorePath]] = defaultdict(set)
    for path, found in roots_of.items():
        for root in found:
            above[root].add(path)
    culprits = []
    for own in grouped.values():
        touched = set().union(*(above[root] for root in own))
        layers = {layer_of[path] for path in touched if layer_of.get(path) in pulled}
        cause = causes.get(next(iter(own)))
        culprits.append(
            Culprit(
                cause=cause,
                cause_changed=cause in changed_causes,
                roots=tuple(came[path] for path in sorted(own, key=by_name)),
                dependents=tuple(came[path] for path in sorted(touched - own, key=by_name)),
                path_bytes=sum(closure[path].nar_size for path in touched),
                layers=tuple(sorted(layers)),
                pull_bytes=sum(pulled[layer] for layer in layers),
            )
        )
    # The dearest first.
    return tuple(
        sorted(
            culprits, key=lambda c: (-c.pull_bytes, -c.path_bytes, c.cause or c.roots[0].package)
        )
    )


def _roots_of(came: Iterable[StorePath], closure: Closure) -> dict[StorePath, frozenset[StorePath]]:
    """For each changed path the changed paths at the bottom of what it reaches."""
    changed = frozenset(came)
    done: dict[StorePath, frozenset[StorePath]] = {}
    seen: set[StorePath] = set()
    for start in changed:
        walk = [start]
        while walk:
            path = walk[-1]
            below = [r for r in closure[path].references if r in changed and r != path]
            missing = [r for r in below if r not in done]
            if missing and path not in seen:
                seen.add(path)
                walk += missing
                continue
            walk.pop()
            found = (done[r] for r in below if r in done)
            done[path] = frozenset().union(*found) or frozenset({path})
    return done


def _causes(
    roots: Iterable[StorePath],
    closure: Closure,
    roots_by_cause: Mapping[str, Sequence[StorePath]],
    changed_causes: frozenset[str],
) -> dict[StorePath, str]:
    """Name each root's cause: changed ones first, then by naming the path, then by reaching it."""
    exact = {name: frozenset(paths) for name, paths in roots_by_cause.items()}
    reach = {name: closure_in(closure, paths) for name, paths in roots_by_cause.items()}
    result = {}
    for root in roots:
        ranked = [
            (name not in changed_causes, root not in exact[name], len(reach[name]), name)
            for name in roots_by_cause
            if root in exact[name] or root in reach[name]
        ]
        if ranked:
            result[root] = min(ranked)[-1]
    return result


@dataclass(frozen=True, slots=True)
class LayerChange:
    """One layer of the new plan against the old one; ``size`` is the sum of NAR sizes in bytes.

    ``was`` is the number of the old layer, of the same tier, that it shares most bytes with (names
    count where bytes changed), or None. ``changes`` are the paths that are new or replaced here,
    and those gone from the old layer.
    """

    paths: tuple[StorePath, ...]
    size: int
    reused: bool
    was: int | None
    changes: tuple[PackageChange, ...]


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
        result.append(
            LayerChange(
                paths=group.paths,
                size=sum(closure[path].nar_size for path in group.paths),
                reused=_contents(group, closure) in old_contents,
                was=was,
                changes=(*own, *lost),
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


@dataclass(frozen=True, slots=True)
class LayerDifference:
    """The layer at *position*, from 0, is another one; None where one side has none there."""

    position: int
    ours: LayerDigests | None
    theirs: LayerDigests | None


@dataclass(frozen=True, slots=True)
class Difference:
    """What of two agreement tuples differs; *members* names the parts, in the tuple's order.

    Where the tuples are equal, it may be the ``roots_digest`` stated beside them.
    """

    members: tuple[str, ...]
    layers: tuple[LayerDifference, ...]


@dataclass(frozen=True, slots=True)
class PathDifference:
    """A store path that differs: another NAR hash, or None on the side that lacks it.

    *layers* are the positions of the layers that hold it, ours and theirs.
    """

    path: StorePath
    ours: NarHash | None
    theirs: NarHash | None
    layers: tuple[int | None, int | None]


@dataclass(frozen=True, slots=True)
class SpecDifference:
    """How two seed specs differ: in *paths*, and in which other *members* of ``seed.json``."""

    paths: tuple[PathDifference, ...]
    members: tuple[str, ...]


def compare_agreements(ours: Agreement, theirs: Agreement) -> Difference:
    """Say in what *theirs* differs from *ours*."""
    members = ("commit", "system", "nar_hash", "layers", "image_digest")
    return Difference(
        tuple(name for name in members if getattr(ours, name) != getattr(theirs, name)),
        tuple(
            LayerDifference(position, one, other)
            for position, (one, other) in enumerate(zip_longest(ours.layers, theirs.layers))
            if one != other
        ),
    )


def compare_specs(ours: Spec, theirs: Spec) -> SpecDifference:
    """Say in which store paths, and in what else, two specs differ."""
    one, other = _layer_of(ours), _layer_of(theirs)
    hashes = [{path: info.nar_hash for path, info in each.paths.items()} for each in (ours, theirs)]
    members = ("kind", "name", "system", "config", "files", "inputs", "tiers", "layers")
    return SpecDifference(
        tuple(
            PathDifference(
                path, hashes[0].get(path), hashes[1].get(path), (one.get(path), other.get(path))
            )
            for path in sorted(hashes[0].keys() | hashes[1].keys())
            if hashes[0].get(path) != hashes[1].get(path)
        ),
        tuple(
            name
            for name in (*members, "compressor", "withheld", "unknown", "any_user", "excluded")
            if getattr(ours, name) != getattr(theirs, name)
        ),
    )


def _layer_of(spec: Spec) -> dict[StorePath, int]:
    return {path: number for number, group in enumerate(spec.layers) for path in group.paths}
