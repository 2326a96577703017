"""in-toto statements: what is said (the predicate) about which bytes (the subjects).

Read strictly: a statement means one thing or it is refused. SHA-256 is the only digest that names a
subject, in lower-case hex under the key ``sha256``; others beside it are passed over, and a
subject without it is refused, for it would name nothing that can be checked here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from nix_seed.formats.intoto.members import member, object_of, optional_member
from nix_seed.ground import canonical_json
from nix_seed.ground.digests import Digest
from nix_seed.ground.errors import InputError

__all__ = ["STATEMENT_V01", "STATEMENT_V1", "Statement", "Subject"]

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
