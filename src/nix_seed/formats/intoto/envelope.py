"""DSSE envelopes (secure-systems-lab/dsse 1.0): a payload, its type and signatures over both.

The payload is opaque: its bytes are what was signed, and no reader here parses them.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from nix_seed.formats.intoto.members import base64_member, member, object_of, optional_member
from nix_seed.ground import canonical_json
from nix_seed.ground.errors import InputError

__all__ = ["PAYLOAD_TYPE", "Envelope", "Signature", "pae"]

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
