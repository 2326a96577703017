"""``urn:nix-seed:promotion:v1``: a release of one commit, over all its systems.

Signed is only what everyone needs: of which commit, the root over the systems, the index that holds
just them, by which policy, on what evidence, and after which records. One system's proof and the
evidence lie beside it, bound by ``tree`` and ``evidence``, so that a consumer of one system reads
nothing of the others. No time and no promoter is in it: promoters who find the same release sign
the same bytes.

What a bundle says of itself, whoever signed it: no signature, signer or log is looked at here.

It only sorts what was found, and tells where to look next: whoever lies here has it judged as what
it is not. What decides anything is judged by ``trust.rules.bundle`` instead.
"""

from __future__ import annotations

import hashlib
from dataclasses import field
from functools import lru_cache
from typing import Final

from nix_seed.core.declared import Declared, at
from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError
from nix_seed.core.values import dataclass
from nix_seed.formats.intoto import statement as intoto
from nix_seed.formats.intoto.bundle import Bundle

PREDICATE_TYPE: Final = "urn:nix-seed:promotion:v1"
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
    commit: intoto.Commit
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


def build_statement(predicate: PromotionPredicate) -> intoto.Statement:
    """Return the statement over the index, the root and the commit's key.

    By the last two a log's index, and any ledger, finds it.
    """
    return intoto.Statement(
        (
            intoto.Subject("index", predicate.index),
            intoto.Subject("root", predicate.root),
            intoto.Subject("commit", predicate.commit.key),
        ),
        PREDICATE_TYPE,
        predicate.to_json(),
    )


def check_statement(statement: intoto.Statement, label: str) -> PromotionPredicate:
    """Return the predicate; ``InputError`` unless *statement* is just the one it implies."""
    if statement.predicate_type != PREDICATE_TYPE:
        raise InputError(f"{label}: predicateType is {statement.predicate_type!r}")
    predicate = PromotionPredicate.from_json(statement.predicate, f"{label}, predicate")
    if statement != build_statement(predicate):
        raise InputError(f"{label}: its subjects or members are not those of its predicate")
    return predicate


_WHAT = "a bundle that is not verified"


@dataclass(frozen=True, slots=True)
class Unverified:
    """An unverified envelope: the SHA-256 of what is *signed*, and of the *payload*.

    The payload names a record. *build* and *promotion* are what it says it states; None if it
    states another thing, or none well.
    """

    signed: Digest
    payload: Digest
    predicate_type: str | None
    build: intoto.BuildPredicate | None
    promotion: PromotionPredicate | None

    @staticmethod
    @lru_cache(1024)
    def read(text: bytes) -> Unverified | None:
        """Read the bytes of a bundle; None for what is none, or holds no envelope."""
        try:
            envelope = Bundle.parse(text, _WHAT).dsse_envelope
        except InputError:
            return None
        if envelope is None:
            return None
        kind, build, promotion = None, None, None
        try:
            statement = intoto.Statement.parse(envelope.payload, _WHAT)
            kind = statement.predicate_type
            if kind == intoto.BUILD_TYPE:
                build = intoto.check_build(statement, _WHAT)
            if kind == PREDICATE_TYPE:
                promotion = check_statement(statement, _WHAT)
        except InputError:
            pass
        signed, payload = Digest.of(envelope.pae), Digest.of(envelope.payload)
        return Unverified(signed, payload, kind, build, promotion)
