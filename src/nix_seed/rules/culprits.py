"""Who caused a change: the deepest paths that differ, and the named inputs they belong to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.rules.package_changes import PackageChange
from nix_seed.rules.partition_index import by_name

__all__ = ["Culprit", "find_culprits"]

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
    layer; a layer that only exchanged unchanged paths has no culprit (see ``LayerChange.moved``).
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
    return tuple(sorted(culprits, key=_dearest))


def _dearest(culprit: Culprit) -> tuple[int, int, str]:
    return -culprit.pull_bytes, -culprit.path_bytes, culprit.cause or culprit.roots[0].package


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
    reach = {name: _reached(paths, closure) for name, paths in roots_by_cause.items()}
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


def _reached(paths: Iterable[StorePath], closure: Closure) -> frozenset[StorePath]:
    found: set[StorePath] = set()
    walk = [path for path in paths if path in closure]
    while walk:
        path = walk.pop()
        if path not in found:
            found.add(path)
            walk += [r for r in closure[path].references if r in closure and r not in found]
    return frozenset(found)
