"""SLSA provenance v1 (slsa.dev/spec/v1.0/provenance), said from the same facts.

For tools that know no other predicate. Ours decides; this one is never counted in a quorum.
"""

from __future__ import annotations

from typing import Any, Final

from nix_seed.formats.intoto.predicate import PREDICATE_TYPE, BuildPredicate
from nix_seed.formats.intoto.statement import Statement, Subject

__all__ = ["SLSA_PROVENANCE_V1", "build_provenance"]

SLSA_PROVENANCE_V1: Final = "https://slsa.dev/provenance/v1"


def build_provenance(predicate: BuildPredicate, name: str) -> Statement:
    """Return the statement that the image was built from the commit, by the builder."""
    return Statement(
        (Subject(name, predicate.image_digest),), SLSA_PROVENANCE_V1, _provenance(predicate)
    )


def _provenance(predicate: BuildPredicate) -> dict[str, Any]:
    source = predicate.source
    return {
        "buildDefinition": {
            # The build type fixes what the parameters mean: our own predicate's members.
            "buildType": PREDICATE_TYPE,
            "externalParameters": {"source": source.uri, "system": predicate.system},
            "internalParameters": {
                "nixVersion": predicate.nix.version,
                "substituters": list(predicate.nix.substituters),
                "sandbox": predicate.nix.sandbox,
                "dirty": source.dirty,
            },
            "resolvedDependencies": [
                # The digest set's name for a Git commit, of either object format.
                {"uri": source.uri, "digest": {"gitCommit": source.commit.hex}},
                *_lock(predicate),
            ],
        },
        "runDetails": {
            "builder": {"id": predicate.builder},
            "metadata": {
                "startedOn": predicate.started_on,
                "finishedOn": predicate.finished_on,
            },
            "byproducts": [{"name": "seed.json", "digest": {"narHash": predicate.nar_hash.hex}}],
        },
    }


def _lock(predicate: BuildPredicate) -> list[dict[str, Any]]:
    lock = predicate.source.lock_hash
    return [] if lock is None else [{"name": "flake.lock", "digest": {"sha256": lock.hex}}]
