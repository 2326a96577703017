"""``urn:nix-seed:build:v1``: one builder built this commit for this system and got these bytes.

What builders must agree on is a value of its own, ``Agreement``. Everything else (who, when, with
which Nix, from which caches) tells how much the claim is worth, and may differ.
"""

import re
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from nix_seed.core.declared import Declared, at, check_time
from nix_seed.core.digests import DiffID, Digest, NarHash
from nix_seed.core.errors import InputError
from nix_seed.formats.intoto.statement import Commit, Statement, Subject

PREDICATE_TYPE: Final = "urn:nix-seed:build:v1"
_SYSTEM = re.compile(r"[a-z0-9_]+-[a-z0-9_]+\Z")


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
    diff_id: DiffID = field(metadata=at("diffID"))


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


class KeyCount(NamedTuple):
    """How many *paths* have a signature by *key*."""

    key: str
    paths: int


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
    signed_by: tuple[KeyCount, ...] = ()


@dataclass(frozen=True, slots=True)
class BuildPredicate(Declared):
    """The predicate (docs/formats-attestation.md).

    *builder* is the id the signer claims; only policy makes it true.
    *reused_layers* were taken from another image, not made here. *roots_digest* names a report of
    what the image rests on. Times are RFC 3339 in UTC, to the second.
    """

    source: Source
    system: str
    nar_hash: NarHash
    layers: tuple[LayerDigests, ...]
    image_digest: Digest
    builder: str = field(metadata=at("builder.id"))
    nix: NixFacts
    paths: PathCounts
    started_on: str
    finished_on: str
    reused_layers: tuple[Digest, ...] = ()
    roots_digest: Digest | None = field(default=None, metadata=at(omit=True))

    def __post_init__(self) -> None:
        if not _SYSTEM.match(self.system):
            raise InputError(f"{self.system!r} is not a Nix system such as x86_64-linux")
        for time in (self.started_on, self.finished_on):
            check_time(time)
        if not set(self.reused_layers) <= {layer.digest for layer in self.layers}:
            raise InputError("reusedLayers names a layer that the image does not have")

    @property
    def agreement(self) -> Agreement:
        """The part that other builders must have found as well."""
        return Agreement(
            self.source.commit, self.system, self.nar_hash, self.layers, self.image_digest
        )


def build_statement(predicate: BuildPredicate, name: str) -> Statement:
    """Return the statement over the image, its narHash and its commit key.

    *name* is what people call the image (its repository); nothing is decided by it.
    """
    return Statement(_subjects(predicate, name), PREDICATE_TYPE, predicate.to_json())


def check_statement(statement: Statement, label: str) -> BuildPredicate:
    """Return the predicate of a statement of ours; ``InputError`` unless it is one.

    The subjects must be the three that the predicate implies and no others, so that a statement
    found by one of them is about all of it.
    """
    if statement.predicate_type != PREDICATE_TYPE:
        raise InputError(f"{label}: predicateType is {statement.predicate_type!r}")
    predicate = BuildPredicate.from_json(statement.predicate, f"{label}, predicate")
    wanted = {subject.digest for subject in _subjects(predicate, "")}
    found = [subject.digest for subject in statement.subjects]
    if set(found) != wanted or len(found) != len(wanted):
        raise InputError(
            f"{label}: its subjects are not the image, the narHash and the commit of its predicate"
        )
    return predicate


def _subjects(predicate: BuildPredicate, name: str) -> tuple[Subject, ...]:
    return (
        Subject(name, predicate.image_digest),
        Subject("narHash", Digest(predicate.nar_hash.hex)),
        Subject("commit", predicate.source.commit.key),
    )
