"""What signs: a key in a file, an identity that Sigstore certifies; a KMS would fit as well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from nix_seed.formats.intoto.bundle import Bundle, Certificate, PublicKeyHint
from nix_seed.formats.intoto.envelope import Envelope
from nix_seed.rules.certificate import CertificateIdentity
from nix_seed.rules.verifying_key import PublicKey

__all__ = ["Signed", "Signer"]


@dataclass(frozen=True, slots=True)
class Signed:
    """An envelope and what verifies it; *key* made its one signature.

    A signer that logs and stamps by itself gives *tlog_entries* and *timestamps* along.
    """

    envelope: Envelope
    key: PublicKey
    material: PublicKeyHint | Certificate
    tlog_entries: tuple[Mapping[str, Any], ...] = ()
    timestamps: tuple[bytes, ...] = ()

    @property
    def bundle(self) -> Bundle:
        """The bundle with the log entries the signer brought."""
        return self.logged(self.tlog_entries)

    def logged(self, entries: tuple[Mapping[str, Any], ...]) -> Bundle:
        """Return a bundle of the same envelope with these log entries, verbatim."""
        return Bundle(self.envelope, self.material, entries, self.timestamps)


class Signer(Protocol):
    """Signs payloads, one at a time."""

    @property
    def who(self) -> PublicKey | CertificateIdentity:
        """Who signs, as a policy names them."""
        ...

    @property
    def identity(self) -> str:
        """Who signs, for people: a key's fingerprint, or an identity and its issuer."""
        ...

    def sign(self, payload_type: str, payload: bytes) -> Signed:
        """Sign the PAE of *payload*, whose exact bytes go into the envelope.

        Raises ``InputError`` for what this signer does not sign, ``CouldNotCheck`` where a
        service it needs is out of reach.
        """
        ...
