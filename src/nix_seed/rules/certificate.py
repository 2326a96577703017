"""Who a Fulcio certificate says its holder is (sigstore/fulcio, docs/oid-info.md).

Reading only: that a trusted authority issued it, and when, is for others to judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from cryptography import x509

from nix_seed.ground.errors import InputError

__all__ = ["CertificateIdentity", "certified_identity", "check_no_root", "read_identity"]

_ISSUER_V2: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_ISSUER_V1: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_REPOSITORY: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.12")
_OTHER_NAME: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.7")
_UTF8_STRING = 0x0C


@dataclass(frozen=True, slots=True, order=True)
class CertificateIdentity:
    """The OIDC issuer, and the subject: a workflow's URI, an e-mail address or a user name.

    *repository* is the URI of the source repository that the job ran for; empty, where a
    certificate states none, or whoever trusts the identity asks for none. A reusable workflow has
    one subject, whosever repository calls it: without this, its word would be everyone's.
    """

    issuer: str
    subject: str
    repository: str = ""

    def __str__(self) -> str:
        return f"{self.subject} of {self.issuer}" + (self.repository and f", for {self.repository}")

    def admits(self, other: CertificateIdentity) -> bool:
        """Whether this identity, as one trusts it, is the *other*, as a certificate states it."""
        named = (self.issuer, self.subject) == (other.issuer, other.subject)
        return named and self.repository in ("", other.repository)


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
        project = f"https://gitlab.com/{claim('project_path')}"
        return CertificateIdentity(issuer, f"https://{config}", project)
    return CertificateIdentity(issuer, claim("email") or claim("sub"))


def read_identity(der: bytes, what: str) -> CertificateIdentity:
    """Return the one identity of the certificate.

    ``InputError`` unless it has exactly one subject alternative name and an issuer: where there
    are two names, "the signer is X" would depend on which one a reader looks at.
    """
    try:
        extensions = x509.load_der_x509_certificate(der).extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        subjects = [_subject(name) for name in names]
        values = _values(extensions)
        issuer = _issuer(values)
        repository = _utf8_string(values[_REPOSITORY]) if _REPOSITORY in values else ""
    except (ValueError, x509.ExtensionNotFound, x509.InvalidVersion) as error:
        raise InputError(f"{what} is no certificate of a Sigstore identity: {error}") from error
    if len(subjects) != 1:
        raise InputError(f"{what} names {len(subjects)} identities, and must name one")
    return CertificateIdentity(issuer, subjects[0], repository)


def check_no_root(chain: Iterable[bytes], what: str) -> None:
    """Raise ``InputError`` if a certificate issued itself: a bundle must not bring its own root.

    Nothing here would believe it; other readers might.
    """
    for der in chain:
        try:
            found = x509.load_der_x509_certificate(der)
        except (ValueError, x509.InvalidVersion) as error:
            raise InputError(f"{what} is no chain of certificates: {error}") from error
        if found.issuer == found.subject:
            raise InputError(f"{what} holds a root certificate, and must not")


def _subject(name: x509.GeneralName) -> str:
    if isinstance(name, x509.UniformResourceIdentifier | x509.RFC822Name):
        return name.value
    if isinstance(name, x509.OtherName) and name.type_id == _OTHER_NAME:
        return _utf8_string(name.value)
    raise ValueError(f"a subject alternative name of type {type(name).__name__}")


def _values(extensions: x509.Extensions) -> dict[x509.ObjectIdentifier, bytes]:
    return {
        found.oid: found.value.value
        for found in extensions
        if isinstance(found.value, x509.UnrecognizedExtension)
    }


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
