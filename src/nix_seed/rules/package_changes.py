"""Which packages came, went or were replaced between two closures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.rules.partition_index import by_name

__all__ = ["PackageChange", "match_packages"]


@dataclass(frozen=True, slots=True)
class PackageChange:
    """One path that came (``old`` None), went (``new`` None) or was replaced under one name.

    ``old`` equals ``new`` where one path holds other bytes than before (another NAR hash).
    """

    package: str
    old: StorePath | None
    new: StorePath | None


def match_packages(
    new: Mapping[StorePath, PathInfo], old: Mapping[StorePath, PathInfo]
) -> tuple[PackageChange, ...]:
    """Pair what differs by ``StorePath.package``, exact names first; in the order of packages."""
    changes = [
        PackageChange(path.package, path, path)
        for path in new
        if path in old and new[path].nar_hash != old[path].nar_hash
    ]
    came = _by_package(path for path in new if path not in old)
    went = _by_package(path for path in old if path not in new)
    for package in came.keys() | went.keys():
        pairs = _pair(came.get(package, []), went.get(package, []))
        changes += [PackageChange(package, before, after) for before, after in pairs]
    return tuple(sorted(changes, key=_order))


def _by_package(paths: Iterable[StorePath]) -> dict[str, list[StorePath]]:
    result: defaultdict[str, list[StorePath]] = defaultdict(list)
    for path in sorted(paths, key=by_name):
        result[path.package].append(path)
    return dict(result)


def _pair(
    came: list[StorePath], went: list[StorePath]
) -> list[tuple[StorePath | None, StorePath | None]]:
    """Same full name first (only the hash differs), then in order, then what is left over."""
    pairs: list[tuple[StorePath | None, StorePath | None]] = []
    rest_came, rest_went = [], list(went)
    for path in came:
        same = next((before for before in rest_went if before.name == path.name), None)
        if same is None:
            rest_came.append(path)
        else:
            rest_went.remove(same)
            pairs.append((same, path))
    both = min(len(rest_came), len(rest_went))
    pairs += zip(rest_went, rest_came, strict=False)
    pairs += [(None, path) for path in rest_came[both:]]
    pairs += [(path, None) for path in rest_went[both:]]
    return pairs


def _order(change: PackageChange) -> tuple[str, str, str]:
    path = change.new or change.old
    assert path is not None
    return by_name(path)
