"""in-toto statements: what is said (the predicate) about which bytes (the subjects).

Read strictly: a statement means one thing or it is refused. SHA-256 is the only digest that names a
subject, in lower-case hex under the key ``sha256``; others beside it are passed over, and a
subject without it is refused, for it would name nothing that can be checked here.

DSSE envelopes (secure-systems-lab/dsse 1.0): a payload, its type and signatures over both.

The payload is opaque: its bytes are what was signed, and no reader here parses them.

A Git commit, as attestations name it and as logs and ledgers find it.
"""

import base64
import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from nix_seed.core import canonical_json
from nix_seed.core.declared import base64_member, member, object_of, optional_member
from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError

STATEMENT_V1: Final = "https://in-toto.io/Statement/v1"
STATEMENT_V01: Final = "https://in-toto.io/Statement/v0.1"
"""The version that cosign 2 still writes. Nothing of ours is of it."""

_MOST_SUBJECTS = 1024


@dataclass(frozen=True, slots=True)
class Subject:
    """Bytes, by their SHA-256; *name* is for people and may be empty."""

    name: str
    digest: Digest

    @classmethod
    def from_json(cls, value: Any, where: str) -> Self:
        """Read a member of ``subject``; *where* names it in errors."""
        found = object_of(value, where, "name", "digest")
        digests = object_of(member(found, "digest", dict, where), f"{where}, digest", "sha256")
        text = member(digests, "sha256", str, f"{where}, digest")
        try:
            digest = Digest(text)
        except InputError as error:
            raise InputError(f"{where}, digest: {error.message}") from error
        return cls(optional_member(found, "name", str, where) or "", digest)

    def to_json(self) -> dict[str, Any]:
        """Return the object as the specification spells it."""
        return {"name": self.name, "digest": {"sha256": self.digest.hex}}


@dataclass(frozen=True, slots=True)
class Statement:
    """Subjects, the type of the predicate, and the predicate as JSON."""

    subjects: tuple[Subject, ...]
    predicate_type: str
    predicate: Mapping[str, Any]
    statement_type: str = STATEMENT_V1

    @classmethod
    def parse(cls, text: bytes, what: str, types: Collection[str] = (STATEMENT_V1,)) -> Self:
        """Read a payload's bytes. ``InputError`` for a statement of another type than *types*."""
        value = object_of(
            canonical_json.loads(text, what=what),
            what,
            *("_type", "subject", "predicateType", "predicate"),
        )
        kind = member(value, "_type", str, what)
        if kind not in types:
            raise InputError(f"{what}: _type is {kind!r}, and must be {' or '.join(sorted(types))}")
        predicate = optional_member(value, "predicate", dict, what)
        return cls(
            _subjects(value, what),
            member(value, "predicateType", str, what),
            {} if predicate is None else predicate,
            kind,
        )

    def dump(self) -> bytes:
        """Return canonical JSON: the bytes to be signed."""
        return canonical_json.dumps(
            {
                "_type": self.statement_type,
                "subject": [subject.to_json() for subject in self.subjects],
                "predicateType": self.predicate_type,
                "predicate": dict(self.predicate),
            }
        )

    def names(self, digest: Digest) -> bool:
        """Whether *digest* is one of the subjects."""
        return any(subject.digest.hex == digest.hex for subject in self.subjects)


def _subjects(value: Mapping[str, Any], what: str) -> tuple[Subject, ...]:
    items = member(value, "subject", list, what)
    if not 0 < len(items) <= _MOST_SUBJECTS:
        raise InputError(f"{what}: {len(items)} subjects; from 1 to {_MOST_SUBJECTS} are read")
    return tuple(
        Subject.from_json(item, f"{what}, subject[{position}]")
        for position, item in enumerate(items)
    )


PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
"""The payload type of in-toto statements (in-toto/attestation, envelope.md)."""

_MOST_SIGNATURES = 16


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return the pre-authentication encoding, the bytes that are signed (DSSE protocol.md)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature over the PAE; *keyid* is an unsigned hint, often empty."""

    sig: bytes
    keyid: str = ""

    @classmethod
    def from_json(cls, value: Any, where: str) -> Self:
        """Read a member of ``signatures``; *where* names it in errors."""
        found = object_of(value, where, "sig", "keyid")
        sig = base64_member(found, "sig", where)
        if not sig:
            raise InputError(f"{where}: sig is empty")
        return cls(sig, optional_member(found, "keyid", str, where) or "")

    def to_json(self) -> dict[str, str]:
        """Return the object as DSSE spells it; an empty *keyid* is left out."""
        value = {"sig": base64.b64encode(self.sig).decode()}
        return value | ({"keyid": self.keyid} if self.keyid else {})


@dataclass(frozen=True, slots=True)
class Envelope:
    """A DSSE envelope with at least one signature; ``payload`` is kept byte for byte."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]

    @classmethod
    def parse(cls, text: bytes, what: str) -> Self:
        """Read an envelope's JSON; ``InputError`` names *what* and the member that is wrong."""
        return cls.from_json(canonical_json.loads(text, what=what), what)

    @classmethod
    def from_json(cls, value: Any, where: str) -> Self:
        """Read an envelope that is part of another document."""
        found = object_of(value, where, "payloadType", "payload", "signatures")
        return cls(
            member(found, "payloadType", str, where),
            base64_member(found, "payload", where),
            _signatures(found, where),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the object as DSSE spells it."""
        return {
            "payloadType": self.payload_type,
            "payload": base64.b64encode(self.payload).decode(),
            "signatures": [signature.to_json() for signature in self.signatures],
        }

    def dump(self) -> bytes:
        """Return canonical JSON of the envelope."""
        return canonical_json.dumps(self.to_json())

    @property
    def pae(self) -> bytes:
        """The bytes each signature is over."""
        return pae(self.payload_type, self.payload)


def _signatures(value: Mapping[str, Any], where: str) -> tuple[Signature, ...]:
    items = member(value, "signatures", list, where)
    if not 0 < len(items) <= _MOST_SIGNATURES:
        raise InputError(f"{where}: {len(items)} signatures; from 1 to {_MOST_SIGNATURES} are read")
    return tuple(
        Signature.from_json(item, f"{where}, signatures[{position}]")
        for position, item in enumerate(items)
    )


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
        commit = cls(member(value, algorithm, str, f"{where}, {name}"))
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
