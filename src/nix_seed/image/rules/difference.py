"""How two builders' words, or two images, differ: in which layers, store paths, NAR hashes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from nix_seed.core.digests import NarHash
from nix_seed.formats.intoto.build import Agreement, LayerDigests
from nix_seed.formats.nix.store_path import StorePath

if TYPE_CHECKING:
    from nix_seed.image.rules.spec import Spec


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
            for name in (*members, "compressor", "withheld", "unknown", "any_user")
            if getattr(ours, name) != getattr(theirs, name)
        ),
    )


def _layer_of(spec: Spec) -> dict[StorePath, int]:
    return {path: number for number, group in enumerate(spec.layers) for path in group.paths}
