"""The seed before this one, and what of it is used again: for the report of a CI job."""

from __future__ import annotations

from dataclasses import dataclass

from nix_seed.flows.base import open_base
from nix_seed.flows.build import Built
from nix_seed.flows.inspect import InspectedImage, inspect
from nix_seed.flows.plan import compare_with_base
from nix_seed.flows.stores import AnyReference, Stores
from nix_seed.formats.oci.reference import Reference
from nix_seed.ground.digests import Digest
from nix_seed.ground.errors import NixSeedError
from nix_seed.rules.compare import PlanDiff
from nix_seed.rules.lock import SeedLock
from nix_seed.rules.spec import Spec

__all__ = ["Before", "LastSeed", "compare_with_last", "last_reference", "read_last"]

_LATEST = "latest"


@dataclass(frozen=True, slots=True)
class LastSeed:
    """The image *name*; so many *layers* of the new one, and *size* bytes, it has already."""

    name: str
    layers: int
    size: int
    diff: PlanDiff


@dataclass(frozen=True, slots=True)
class Before:
    """The seed *name* as it was before this job changed anything."""

    name: str
    spec: Spec
    layers: frozenset[Digest]


def last_reference(lock: SeedLock | None, repository: Reference, system: str) -> AnyReference:
    """Name the seed before this one: ``seed.lock``'s, or else what was promoted last."""
    locked = None if lock is None else lock.reference(system)
    return locked or repository.at(_LATEST)


def read_last(stores: Stores, reference: AnyReference, system: str) -> Before | None:
    """Read the seed that *reference* names; None where it cannot be.

    There may be none yet, it may be private or foreign: no reason for a job to fail.
    """
    try:
        base = open_base(stores, reference, system)
        found = inspect(stores, reference)
    except NixSeedError:
        return None
    images = (found,) if isinstance(found, InspectedImage) else found.images
    layers = frozenset(
        layer.descriptor.digest
        for image in images
        if image.system == system
        for layer in image.layers
    )
    return Before(str(reference), base.spec, layers)


def compare_with_last(before: Before, built: Built) -> LastSeed:
    """Say what of *built* who has the seed *before* has already, and who changed the rest."""
    made = [layer.layer.descriptor for layer in built.layers]
    kept = [layer for layer in made if layer.digest in before.layers]
    diff = compare_with_base(built.plan.spec, before.spec)
    return LastSeed(before.name, len(kept), sum(layer.size for layer in kept), diff)
