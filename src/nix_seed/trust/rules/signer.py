"""Who signs: keys that verify attestations, and who a Fulcio certificate says its holder is.

Keys are ECDSA on P-256 with SHA-256, on P-384 with SHA-384, and Ed25519. No others: the pairs are
those of Sigstore's algorithm registry, so no caller chooses a hash.

Certificates are only read (sigstore/fulcio, docs/oid-info.md): that a trusted authority issued one,
and when, is for others to judge.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from nix_seed.core.errors import InputError, foreign
from nix_seed.core.values import dataclass
from nix_seed.formats.intoto.bundle import Certificate, PublicKeyHint
from nix_seed.formats.tlog.entry import ECDSA_P256, KeyDetails, Verifier
from nix_seed.formats.tlog.note import is_small_order

_ISSUER_V2: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_ISSUER_V1: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_REPOSITORY: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.12")
_OTHER_NAME: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.7")
_UTF8_STRING = 0x0C
# GitHub names a workflow, and GitLab a pipeline, by a file; before it is the repository's address.
_FILE = re.compile(r"(https://[^/@]+/[^@]+?)/(?:\.[a-z]+/workflows)?/[^@]+@")


@dataclass(frozen=True, slots=True, order=True)
class CertificateIdentity:
    """The OIDC issuer, and the subject: a workflow's URI, an e-mail address or a user name.

    *repository* is the URI of the source repository that the job ran for; empty, where a
    certificate states none, or whoever trusts the identity asks for none. A reusable workflow has
    one subject, whosever repository calls it: without this, its word would be everyone's. So who
    asks for none trusts a workflow in the repository that its file lies in, and in no other.
    """

    issuer: str
    subject: str
    repository: str = ""

    def __str__(self) -> str:
        return f"{self.subject} of {self.issuer}" + (self.repository and f", for {self.repository}")

    def admits(self, other: CertificateIdentity) -> bool:
        """Whether this identity, as one trusts it, is the *other*, as a certificate states it."""
        if (self.issuer, self.subject) != (other.issuer, other.subject):
            return False
        file = None if self.repository else _FILE.match(self.subject)
        if file is None or not other.repository:
            return self.repository in ("", other.repository)
        return file[1].casefold() == other.repository.casefold()


def certified_identity(claims: Mapping[str, object], issuer: str) -> CertificateIdentity:
    """Return whom Fulcio certifies for a token of *issuer* with these *claims*, unverified.

    As the public instance is configured (sigstore/fulcio, config/identity/config.yaml) for jobs of
    GitHub and GitLab, for e-mail addresses, and else by subject. Only the certificate decides.
    """

    def claim(name: str) -> str:
        value = claims.get(name)
        return value if isinstance(value, str) else ""

    if workflow := claim("job_workflow_ref"):
        forge, subject, project = "https://github.com", workflow, claim("repository")
        return CertificateIdentity(issuer, f"{forge}/{subject}", f"{forge}/{project}")
    if config := claim("ci_config_ref_uri"):
        # The forge's own host, where it is not gitlab.com.
        project = f"https://{config.partition('/')[0]}/{claim('project_path')}"
        return CertificateIdentity(issuer, f"https://{config}", project)
    return CertificateIdentity(issuer, claim("email") or claim("sub"))


def read_identity(der: bytes, label: str) -> CertificateIdentity:
    """Return the one identity of the certificate.

    ``InputError`` unless it has exactly one subject alternative name and an issuer: where there
    are two names, "the signer is X" would depend on which one a reader looks at.
    """
    with foreign(f"{label} is no certificate of a Sigstore identity", as_=InputError):
        extensions = x509.load_der_x509_certificate(der).extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        subjects = [_subject(name) for name in names]
        values = {
            found.oid: found.value.value
            for found in extensions
            if isinstance(found.value, x509.UnrecognizedExtension)
        }
        issuer = _issuer(values)
        repository = _utf8_string(values[_REPOSITORY]) if _REPOSITORY in values else ""
    if len(subjects) != 1:
        raise InputError(f"{label} names {len(subjects)} identities, and must name one")
    return CertificateIdentity(issuer, subjects[0], repository)


def check_no_root(chain: Iterable[bytes], label: str) -> None:
    """Raise ``InputError`` if a certificate issued itself: a bundle must not bring its own root.

    Nothing here would believe it; other readers might.
    """
    for der in chain:
        with foreign(f"{label} is no chain of certificates", as_=InputError):
            found = x509.load_der_x509_certificate(der)
            own = found.issuer == found.subject
        if own:
            raise InputError(f"{label} holds a root certificate, and must not")


def _subject(name: x509.GeneralName) -> str:
    if isinstance(name, x509.UniformResourceIdentifier | x509.RFC822Name):
        return name.value
    if isinstance(name, x509.OtherName) and name.type_id == _OTHER_NAME:
        return _utf8_string(name.value)
    raise ValueError(f"a subject alternative name of type {type(name).__name__}")


def _issuer(values: Mapping[x509.ObjectIdentifier, bytes]) -> str:
    """Prefer the extension that is proper DER; the older one is bare text."""
    new, old = values.get(_ISSUER_V2), values.get(_ISSUER_V1)
    if new is None and old is None:
        raise ValueError("no OIDC issuer")
    spelled = {_utf8_string(new)} if new is not None else set()
    spelled |= {old.decode()} if old is not None else set()
    if len(spelled) != 1:
        raise ValueError("two different OIDC issuers")
    return spelled.pop()


def _utf8_string(der: bytes) -> str:
    """Read a DER UTF8String, whole."""
    if len(der) < 2 or der[0] != _UTF8_STRING:
        raise ValueError("not a UTF8String")
    head, length = 2, der[1]
    if length == 0x81:
        head, length = 3, der[2]
        if length < 0x80:
            raise ValueError("a length that is not DER")
    elif length == 0x82:
        head, length = 4, int.from_bytes(der[2:4], "big")
        if length < 0x100:
            raise ValueError("a length that is not DER")
    elif length > 0x82:
        raise ValueError("a string that is too long")
    if len(der) != head + length:
        raise ValueError("a UTF8String of another length than it says")
    return der[head:].decode()


def read_certificate(held: Certificate, label: str) -> tuple[PublicKey, CertificateIdentity]:
    """Return the key and the identity of a bundle's certificate; neither is judged.

    ``InputError`` for what ``read_identity`` and ``check_no_root`` refuse.
    """
    key = PublicKey.of_certificate(held.der, f"{label}, certificate")
    identity = read_identity(held.der, f"{label}, certificate")
    check_no_root(held.chain, f"{label}, certificate chain")
    return key, identity


_Loaded = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
_KINDS = "ECDSA on P-256 or P-384 and Ed25519"
_HASHES = {"secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384()}


@dataclass(frozen=True, slots=True, order=True)
class PublicKey:
    """A key, by its SubjectPublicKeyInfo in DER: the one spelling under which keys are equal."""

    der: bytes
    _loaded: _Loaded = field(repr=False, compare=False)

    @classmethod
    def from_der(cls, der: bytes, label: str) -> Self:
        """Read a SubjectPublicKeyInfo; ``InputError`` for another kind of key or none."""
        with foreign(f"{label} is not a public key", as_=InputError):
            return cls._of(serialization.load_der_public_key(der), label)

    @classmethod
    def from_pem(cls, text: bytes, label: str) -> Self:
        """Read a PEM file as ``cosign`` and ``openssl`` write it (``BEGIN PUBLIC KEY``)."""
        try:
            return cls._of(serialization.load_pem_public_key(text), label)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InputError(
                f"{label} is not a public key in PEM",
                hint="it begins with -----BEGIN PUBLIC KEY-----; "
                "'nix-seed key show FILE' prints the one of a private key",
                detail=str(error),
            ) from error

    @classmethod
    def of_certificate(cls, der: bytes, label: str) -> Self:
        """Return the key that an X.509 certificate binds; the certificate is not judged."""
        with foreign(f"{label} is not a certificate", as_=InputError):
            key = x509.load_der_x509_certificate(der).public_key()
        return cls._of(key, label)

    @classmethod
    def _of(cls, key: object, label: str) -> Self:
        """Keep a key of a kind we know. Its DER is made anew, so that none has two spellings."""
        known = isinstance(key, ed25519.Ed25519PublicKey) or (
            isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _HASHES
        )
        if not known:
            raise InputError(f"{label} is a key of another kind; {_KINDS} are supported")
        assert isinstance(key, _Loaded)
        if isinstance(key, ed25519.Ed25519PublicKey) and is_small_order(key.public_bytes_raw()):
            raise InputError(f"{label} is of small order: anyone can sign with it")
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

    def verifier(self, material: PublicKeyHint | Certificate) -> Verifier:
        """Return what a log records as the verifier: a certificate, or this key without one."""
        if isinstance(material, Certificate):
            return Verifier(None, material.der, self.details)
        return Verifier(self.der, None, self.details)

    @property
    def details(self) -> KeyDetails:
        """The kind of its signatures, as logs name them."""
        return ECDSA_P256 if self.algorithm == "ecdsa-p256" else "PKIX_ED25519"

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


SignedBy = PublicKey | CertificateIdentity
"""Who signs: the holder of a key, or whom an OIDC issuer vouches for; both compared exactly."""
