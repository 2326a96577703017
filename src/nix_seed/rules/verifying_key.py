"""Keys that verify attestations: ECDSA on P-256 with SHA-256, on P-384 with SHA-384, and Ed25519.

No others: the pairs are those of Sigstore's algorithm registry, so no caller chooses a hash.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from nix_seed.ground.errors import InputError

__all__ = ["PublicKey"]

_Loaded = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
_KINDS = "ECDSA on P-256 or P-384 and Ed25519"
_HASHES = {"secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384()}


@dataclass(frozen=True, slots=True, order=True)
class PublicKey:
    """A key, by its SubjectPublicKeyInfo in DER: the one spelling under which keys are equal."""

    der: bytes
    _loaded: _Loaded = field(repr=False, compare=False)

    @classmethod
    def from_der(cls, der: bytes, what: str) -> Self:
        """Read a SubjectPublicKeyInfo; ``InputError`` for another kind of key or none."""
        try:
            return cls._of(serialization.load_der_public_key(der), what)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InputError(f"{what} is not a public key: {error}") from error

    @classmethod
    def from_pem(cls, text: bytes, what: str) -> Self:
        """Read a PEM file as ``cosign`` and ``openssl`` write it (``BEGIN PUBLIC KEY``)."""
        try:
            return cls._of(serialization.load_pem_public_key(text), what)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InputError(
                f"{what} is not a public key in PEM",
                hint="it begins with -----BEGIN PUBLIC KEY-----; "
                "'nix-seed key show FILE' prints the one of a private key",
                detail=str(error),
            ) from error

    @classmethod
    def of_certificate(cls, der: bytes, what: str) -> Self:
        """Return the key that an X.509 certificate binds; the certificate is not judged."""
        try:
            return cls._of(x509.load_der_x509_certificate(der).public_key(), what)
        except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
            raise InputError(f"{what} is not a certificate: {error}") from error

    @classmethod
    def _of(cls, key: object, what: str) -> Self:
        """Keep a key of a kind we know. Its DER is made anew, so that none has two spellings."""
        known = isinstance(key, ed25519.Ed25519PublicKey) or (
            isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _HASHES
        )
        if not known:
            raise InputError(f"{what} is a key of another kind; {_KINDS} are supported")
        assert isinstance(key, _Loaded)
        spki = serialization.PublicFormat.SubjectPublicKeyInfo
        return cls(key.public_bytes(serialization.Encoding.DER, spki), key)

    @property
    def algorithm(self) -> str:
        """``ecdsa-p256``, ``ecdsa-p384`` or ``ed25519``."""
        if isinstance(self._loaded, ed25519.Ed25519PublicKey):
            return "ed25519"
        return f"ecdsa-p{self._loaded.curve.key_size}"

    @property
    def hint(self) -> str:
        """How a Sigstore bundle names the key: base64 of the SHA-256 of its DER."""
        return base64.b64encode(hashlib.sha256(self.der).digest()).decode()

    @property
    def fingerprint(self) -> str:
        """How people and policies name the key: ``sha256:`` and the hex of the same hash."""
        return f"sha256:{hashlib.sha256(self.der).hexdigest()}"

    @property
    def pem(self) -> bytes:
        """The file that ``cosign verify-attestation --key`` reads."""
        return self._loaded.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether *signature* is this key's over *data* (ECDSA: over its hash, in DER)."""
        try:
            if isinstance(self._loaded, ed25519.Ed25519PublicKey):
                self._loaded.verify(signature, data)
            else:
                self._loaded.verify(signature, data, ec.ECDSA(_HASHES[self._loaded.curve.name]))
        except InvalidSignature:
            return False
        return True
