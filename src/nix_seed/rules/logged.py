"""From a signed envelope to what its log entry must record."""

from __future__ import annotations

import hashlib

from nix_seed.formats.intoto.bundle import Certificate, PublicKeyHint
from nix_seed.formats.intoto.envelope import Envelope
from nix_seed.formats.tlog.body import ECDSA_P256, LoggedSignature, Verifier
from nix_seed.ground.errors import InputError
from nix_seed.rules.verifying_key import PublicKey

__all__ = ["logged_signature", "verifier_of"]


def verifier_of(material: PublicKeyHint | Certificate, key: PublicKey) -> Verifier:
    """Return what a log records as the verifier: the certificate, or *key* where there is none."""
    details = ECDSA_P256 if key.algorithm == "ecdsa-p256" else "PKIX_ED25519"
    if isinstance(material, Certificate):
        return Verifier(material.der, True, details)
    return Verifier(key.der, False, details)


def logged_signature(envelope: Envelope, verifier: Verifier) -> LoggedSignature:
    """Return what a log entry of *envelope* must record; the envelope has one signature."""
    if len(envelope.signatures) != 1:
        raise InputError(
            f"the envelope has {len(envelope.signatures)} signatures; a log entry is of one"
        )
    return LoggedSignature(
        pae_digest=hashlib.sha256(envelope.pae).digest(),
        payload_digest=hashlib.sha256(envelope.payload).digest(),
        signature=envelope.signatures[0].sig,
        verifier=verifier,
    )
