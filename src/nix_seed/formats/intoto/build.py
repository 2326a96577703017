"""``urn:nix-seed:build:v1``: one builder built this commit for this system and got these bytes.

What builders must agree on is a value of its own, ``Agreement``. Everything else (who, when, with
which Nix, from which caches) tells how much the claim is worth, and may differ.

SLSA provenance v1 (slsa.dev/spec/v1.0/provenance), said from the same facts.

For tools that know no other predicate. Ours decides; this one is never counted in a quorum.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from nix_seed.core.digests import DiffID, Digest, NarHash
from nix_seed.core.errors import InputError
from nix_seed.formats.intoto import members as read
from nix_seed.formats.intoto.members import member, object_of
from nix_seed.formats.intoto.statement import Commit, Statement, Subject, commit_json, read_commit

PREDICATE_TYPE: Final = "urn:nix-seed:build:v1"
_SYSTEM = re.compile(r"[a-z0-9_]+-[a-z0-9_]+\Z")
_MEMBERS = (
    *("source", "system", "narHash", "layers", "imageDigest", "rootsDigest", "builder", "nix"),
    *("paths", "reusedLayers", "startedOn", "finishedOn"),
)


@dataclass(frozen=True, slots=True)
class Source:
    """Where the flake came from. A *dirty* tree differs from its commit in unknown ways.

    *lock_hash* is the SHA-256 of ``flake.lock``, None for a flake without one.
    """

    uri: str
    commit: Commit
    lock_hash: Digest | None
    dirty: bool = False


@dataclass(frozen=True, slots=True, order=True)
class LayerDigests:
    """A layer's blob and its uncompressed tar."""

    digest: Digest
    diff_id: DiffID


@dataclass(frozen=True, slots=True)
class Agreement:
    """What independent builders must agree on, all of it; compare with ``==``."""

    commit: Commit
    system: str
    nar_hash: NarHash
    layers: tuple[LayerDigests, ...]
    image_digest: Digest


@dataclass(frozen=True, slots=True)
class NixFacts:
    """The Nix that built: ``nix --version``'s number and the settings that bear on trust."""

    version: str
    substituters: tuple[str, ...]
    sandbox: str


@dataclass(frozen=True, slots=True)
class PathCounts:
    """How the image's store paths came to the builder's store; the four add up to all of them.

    *built* here; *substituted*, with a signature (*signed_by* counts each key, and a path may
    have several); *added*, named by their own contents; *unexplained*, none of these.
    """

    built: int
    substituted: int
    added: int
    unexplained: int
    signed_by: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class BuildPredicate:
    """The predicate. *builder* is the id the signer claims; only policy makes it true.

    *reused_layers* were taken from another image, not made here. *roots_digest* names a report of
    what the image rests on. Times are RFC 3339 in UTC, to the second.
    """

    source: Source
    system: str
    nar_hash: NarHash
    layers: tuple[LayerDigests, ...]
    image_digest: Digest
    builder: str
    nix: NixFacts
    paths: PathCounts
    started_on: str
    finished_on: str
    reused_layers: tuple[Digest, ...] = ()
    roots_digest: Digest | None = None

    def __post_init__(self) -> None:
        if not _SYSTEM.match(self.system):
            raise InputError(f"{self.system!r} is not a Nix system such as x86_64-linux")
        for time in (self.started_on, self.finished_on):
            read.check_time(time)
        if not set(self.reused_layers) <= {layer.digest for layer in self.layers}:
            raise InputError("reusedLayers names a layer that the image does not have")

    @property
    def agreement(self) -> Agreement:
        """The part that other builders must have found as well."""
        return Agreement(
            self.source.commit, self.system, self.nar_hash, self.layers, self.image_digest
        )

    @classmethod
    def from_json(cls, value: Any, where: str) -> Self:
        """Read the ``predicate`` of a statement; *where* names it in errors."""
        found = object_of(value, where, *_MEMBERS)
        builder = object_of(member(found, "builder", dict, where), f"{where}, builder", "id")
        try:
            return cls(
                source=_source(found, where),
                system=member(found, "system", str, where),
                nar_hash=_nar_hash(found, where),
                layers=_layers(found, where),
                image_digest=read.digest(found, "imageDigest", where),
                builder=member(builder, "id", str, f"{where}, builder"),
                nix=_nix(found, where),
                paths=_paths(found, where),
                started_on=member(found, "startedOn", str, where),
                finished_on=member(found, "finishedOn", str, where),
                reused_layers=tuple(
                    Digest.parse(text) for text in read.strings(found, "reusedLayers", where)
                ),
                roots_digest=read.optional_digest(found, "rootsDigest", where),
            )
        except InputError as error:
            if error.message.startswith(where):
                raise
            raise InputError(f"{where}: {error.message}", hint=error.hint) from error

    def to_json(self) -> dict[str, Any]:
        """Return the object as docs/formats-attestation.md lists it."""
        lock, roots = self.source.lock_hash, self.roots_digest
        value: dict[str, Any] = {
            "source": {
                "uri": self.source.uri,
                "commit": commit_json(self.source.commit),
                "lockHash": None if lock is None else str(lock),
                "dirty": self.source.dirty,
            },
            "system": self.system,
            "narHash": str(self.nar_hash),
            "layers": [
                {"digest": str(layer.digest), "diffID": str(layer.diff_id)} for layer in self.layers
            ],
            "imageDigest": str(self.image_digest),
            "builder": {"id": self.builder},
            "nix": {
                "version": self.nix.version,
                "substituters": list(self.nix.substituters),
                "sandbox": self.nix.sandbox,
            },
            "paths": {
                "built": self.paths.built,
                "substituted": self.paths.substituted,
                "added": self.paths.added,
                "unexplained": self.paths.unexplained,
                "signedBy": [{"key": key, "paths": count} for key, count in self.paths.signed_by],
            },
            "reusedLayers": [str(digest) for digest in self.reused_layers],
            "startedOn": self.started_on,
            "finishedOn": self.finished_on,
        }
        return value if roots is None else value | {"rootsDigest": str(roots)}


def build_statement(predicate: BuildPredicate, name: str) -> Statement:
    """Return the statement over the image, its narHash and its commit key.

    *name* is what people call the image (its repository); nothing is decided by it.
    """
    return Statement(_subjects(predicate, name), PREDICATE_TYPE, predicate.to_json())


def check_statement(statement: Statement, what: str) -> BuildPredicate:
    """Return the predicate of a statement of ours; ``InputError`` unless it is one.

    The subjects must be the three that the predicate implies and no others, so that a statement
    found by one of them is about all of it.
    """
    if statement.predicate_type != PREDICATE_TYPE:
        raise InputError(f"{what}: predicateType is {statement.predicate_type!r}")
    predicate = BuildPredicate.from_json(statement.predicate, f"{what}, predicate")
    wanted = {subject.digest for subject in _subjects(predicate, "")}
    found = [subject.digest for subject in statement.subjects]
    if set(found) != wanted or len(found) != len(wanted):
        raise InputError(
            f"{what}: its subjects are not the image, the narHash and the commit of its predicate"
        )
    return predicate


def _subjects(predicate: BuildPredicate, name: str) -> tuple[Subject, ...]:
    return (
        Subject(name, predicate.image_digest),
        Subject("narHash", Digest(predicate.nar_hash.hex)),
        Subject("commit", predicate.source.commit.key),
    )


def _source(value: Mapping[str, Any], where: str) -> Source:
    inner = f"{where}, source"
    found = object_of(
        member(value, "source", dict, where), inner, "uri", "commit", "lockHash", "dirty"
    )
    return Source(
        member(found, "uri", str, inner),
        read_commit(found, inner),
        read.optional_digest(found, "lockHash", inner),
        member(found, "dirty", bool, inner),
    )


def _nar_hash(value: Mapping[str, Any], where: str) -> NarHash:
    text = member(value, "narHash", str, where)
    found = NarHash.parse(text)
    if str(found) != text:
        raise InputError(f"{where}: narHash must be spelled {found}")
    return found


def _layers(value: Mapping[str, Any], where: str) -> tuple[LayerDigests, ...]:
    layers = []
    for position, item in enumerate(member(value, "layers", list, where)):
        inner = f"{where}, layers[{position}]"
        found = object_of(item, inner, "digest", "diffID")
        diff_id = DiffID.parse(member(found, "diffID", str, inner))
        layers.append(LayerDigests(read.digest(found, "digest", inner), diff_id))
    return tuple(layers)


def _nix(value: Mapping[str, Any], where: str) -> NixFacts:
    inner = f"{where}, nix"
    found = object_of(
        member(value, "nix", dict, where), inner, "version", "substituters", "sandbox"
    )
    return NixFacts(
        member(found, "version", str, inner),
        read.strings(found, "substituters", inner),
        member(found, "sandbox", str, inner),
    )


def _paths(value: Mapping[str, Any], where: str) -> PathCounts:
    inner = f"{where}, paths"
    names = ("built", "substituted", "added", "unexplained")
    found = object_of(member(value, "paths", dict, where), inner, *names, "signedBy")
    keys = []
    for item in member(found, "signedBy", list, inner):
        one = object_of(item, f"{inner}, signedBy", "key", "paths")
        key = member(one, "key", str, f"{inner}, signedBy")
        keys.append((key, read.count(one, "paths", f"{inner}, signedBy")))
    built, substituted, added, unexplained = (read.count(found, name, inner) for name in names)
    return PathCounts(built, substituted, added, unexplained, tuple(keys))


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
