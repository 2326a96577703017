"""in-toto statements: what is said (the predicate) about which bytes (the subjects).

Read strictly: a statement means one thing or it is refused. SHA-256 is the only digest that names a
subject, in lower-case hex under the key ``sha256``; others beside it are passed over, and a
subject without it is refused, for it would name nothing that can be checked here.

DSSE envelopes (secure-systems-lab/dsse 1.0): a payload, its type and signatures over both.

The payload is opaque: its bytes are what was signed, and no reader here parses them.

A Git commit, as attestations name it and as logs and ledgers find it.

``urn:nix-seed:build:v1``: one builder built this commit for this system and got these bytes.

What builders must agree on is a value of its own, ``Agreement``. Everything else (who, when, with
which Nix, from which caches) tells how much the claim is worth, and may differ.

``urn:nix-seed:promotion:v1``: a release of one commit, over all its systems.

Signed is only what everyone needs: of which commit, the root over the systems, the index that holds
just them, by which policy, on what evidence, and after which records. One system's proof and the
evidence lie beside it, bound by ``tree`` and ``evidence``, so that a consumer of one system reads
nothing of the others. No time and no promoter is in it: promoters who find the same release sign
the same bytes.
"""

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import field
from typing import Annotated, Any, Final, NamedTuple, Self, TypeVar

from nix_seed.core import canonical_json
from nix_seed.core.declared import Declared, at, check_time, text_of
from nix_seed.core.digests import DiffID, Digest, NarHash
from nix_seed.core.errors import InputError
from nix_seed.core.values import dataclass

STATEMENT_V1: Final = "https://in-toto.io/Statement/v1"
STATEMENT_V01: Final = "https://in-toto.io/Statement/v0.1"
"""The version that cosign 2 still writes. Nothing of ours is of it."""

_Predicate = TypeVar("_Predicate", bound=Declared)


_BareHex = Annotated[Digest, text_of(Digest, lambda digest: digest.hex)]


@dataclass(frozen=True, slots=True)
class Subject:
    """Bytes, by their SHA-256; *name* is for people and may be empty."""

    name: str = field(metadata=at(absent=""))
    digest: _BareHex = field(metadata=at("digest.sha256"))


@dataclass(frozen=True, slots=True)
class Statement(Declared):
    """Subjects, the type of the predicate, and the predicate as JSON."""

    subjects: tuple[Subject, ...] = field(metadata=at("subject", sizes=(1, 1024)))
    predicate_type: str
    predicate: Mapping[str, Any] = field(metadata=at(absent={}))
    statement_type: str = field(default=STATEMENT_V1, metadata=at("_type"))

    @classmethod
    def parse(cls, text: bytes, label: str, types: Collection[str] = (STATEMENT_V1,)) -> Self:
        """Read a payload's bytes. ``InputError`` for a statement of another type than *types*."""
        found = cls.from_json(canonical_json.loads(text, label=label), label)
        if found.statement_type not in types:
            wanted = " or ".join(sorted(types))
            raise InputError(f"{label}: _type is {found.statement_type!r}, and must be {wanted}")
        return found

    def names(self, digest: Digest) -> bool:
        """Whether *digest* is one of the subjects."""
        return any(subject.digest.hex == digest.hex for subject in self.subjects)

    def predicate_as(self, kind: type[_Predicate], predicate_type: str, label: str) -> _Predicate:
        """Return the predicate as *kind* declares it; ``InputError`` for one of another type."""
        if self.predicate_type != predicate_type:
            raise InputError(f"{label}: predicateType is {self.predicate_type!r}")
        return kind.from_json(self.predicate, f"{label}, predicate")


PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
"""The payload type of in-toto statements (in-toto/attestation, envelope.md)."""


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return the pre-authentication encoding, the bytes that are signed (DSSE protocol.md)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature over the PAE; *keyid* is an unsigned hint, often empty."""

    sig: bytes
    keyid: str = field(default="", metadata=at(omit=True))

    def __post_init__(self) -> None:
        if not self.sig:
            raise InputError("sig is empty")


@dataclass(frozen=True, slots=True)
class Envelope(Declared):
    """A DSSE envelope with at least one signature; ``payload`` is kept byte for byte."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...] = field(metadata=at(sizes=(1, 16)))

    @property
    def pae(self) -> bytes:
        """The bytes each signature is over."""
        return pae(self.payload_type, self.payload)


_LENGTHS = {40: "sha1", 64: "sha256"}
_HEX = re.compile(r"[0-9a-f]*")


@dataclass(frozen=True, slots=True, order=True)
class Commit:
    """A Git commit: 40 (SHA-1) or 64 (SHA-256) lower-case hex digits."""

    hex: str

    def __post_init__(self) -> None:
        if not is_commit(self.hex):
            raise InputError(f"{self.hex!r} is not a commit: 40 or 64 lower-case hex digits")

    def __str__(self) -> str:
        return self.hex

    @classmethod
    def read_member(cls, value: Any, name: str, where: str) -> Self:
        """Read the member *name*, a digest set of one; see ``core.declared``."""
        if type(value) is not dict:
            raise InputError(f"{where}: {name} must be an object")
        if len(value) != 1:
            raise InputError(f"{where}: {name} must have one member, sha1 or sha256")
        (algorithm,) = value
        if type(value[algorithm]) is not str:
            raise InputError(f"{where}, {name}: {algorithm} must be a string")
        commit = cls(value[algorithm])
        if commit.algorithm != algorithm:
            raise InputError(f"{where}: {name} {commit} is not a {algorithm}")
        return commit

    def to_json(self) -> dict[str, str]:
        """Return the commit as a digest set: one member, by Git's object format."""
        return {self.algorithm: self.hex}

    @property
    def algorithm(self) -> str:
        """``sha1`` or ``sha256``, Git's object format."""
        return _LENGTHS[len(self.hex)]

    @property
    def key(self) -> Digest:
        """The SHA-256 by which a log's index finds the commit.

        Of ``nix-seed/commit/v1``, a zero byte, the algorithm and the hex digits, in ASCII.
        """
        text = f"nix-seed/commit/v1\0{self.algorithm}{self.hex}"
        return Digest(hashlib.sha256(text.encode()).hexdigest())


def is_commit(text: str) -> bool:
    """Whether *text* is spelled as a ``Commit`` is, as tags are that are named after one."""
    return len(text) in _LENGTHS and _HEX.fullmatch(text) is not None


BUILD_TYPE: Final = "urn:nix-seed:build:v1"
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
    return Statement(_subjects(predicate, name), BUILD_TYPE, predicate.to_json())


def check_build(statement: Statement, label: str) -> BuildPredicate:
    """Return the predicate of a statement of ours; ``InputError`` unless it is one.

    The subjects must be the three that the predicate implies and no others, so that a statement
    found by one of them is about all of it.
    """
    predicate = statement.predicate_as(BuildPredicate, BUILD_TYPE, label)
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


PROMOTION_TYPE: Final = "urn:nix-seed:promotion:v1"
_MOST_SYSTEMS = 1 << 16
MOST_PREVIOUS: Final = 64


@dataclass(frozen=True, slots=True)
class PromotionPredicate(Declared):
    """The predicate (docs/formats-promotion.md).

    *root* and *size* are of the RFC 6962 tree over the systems' leaves; *index* is the OCI index of
    just these images. *policy* and *epoch* name the ``trust.toml`` that was satisfied, *evidence*
    the document that lists every attestation that counted. *previous* are the records, by the
    SHA-256 of their statements, that this one comes after: sorted, empty for a ledger's first.
    *outputs_root* and *outputs_size* are of the tree over all systems' outputs that a quorum stands
    for; a record without them says nothing of outputs.
    """

    repository: str
    commit: Commit
    root: Digest = field(metadata=at("tree.root"))
    size: int = field(metadata=at("tree.size"))
    index: Digest
    policy: Digest = field(metadata=at("policy.digest"))
    epoch: int = field(metadata=at("policy.epoch"))
    evidence: Digest
    previous: tuple[Digest, ...]
    outputs_root: Digest | None = field(default=None, metadata=at("outputs.root", omit=True))
    outputs_size: int = field(default=0, metadata=at("outputs.size", omit=True))

    def __post_init__(self) -> None:
        if not 1 <= self.size <= _MOST_SYSTEMS:
            raise InputError(f"a release has 1 to {_MOST_SYSTEMS} systems, not {self.size}")
        if len(self.previous) > MOST_PREVIOUS:
            raise InputError(f"a record comes after at most {MOST_PREVIOUS} others")
        if list(self.previous) != sorted(set(self.previous)):
            raise InputError("previous must be sorted, each record once")
        if (self.outputs_root is None) != (self.outputs_size == 0):
            raise InputError("outputs must have a root and a size, or be absent")


def first_key(repository: str) -> Digest:
    """The SHA-256 that stands before the first record of *repository*'s ledger.

    Of ``nix-seed/ledger/v1``, a zero byte and the repository's URI in UTF-8.
    """
    return Digest(hashlib.sha256(f"nix-seed/ledger/v1\0{repository}".encode()).hexdigest())


def promotion_statement(predicate: PromotionPredicate) -> Statement:
    """Return the statement over the index, the root and the commit's key.

    By the last two a log's index, and any ledger, finds it.
    """
    return Statement(
        (
            Subject("index", predicate.index),
            Subject("root", predicate.root),
            Subject("commit", predicate.commit.key),
        ),
        PROMOTION_TYPE,
        predicate.to_json(),
    )


def check_promotion(statement: Statement, label: str) -> PromotionPredicate:
    """Return the predicate; ``InputError`` unless *statement* is just the one it implies."""
    predicate = statement.predicate_as(PromotionPredicate, PROMOTION_TYPE, label)
    if statement != promotion_statement(predicate):
        raise InputError(f"{label}: its subjects or members are not those of its predicate")
    return predicate
