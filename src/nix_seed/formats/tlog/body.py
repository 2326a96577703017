"""What a log's leaves say: Rekor's entry bodies, and the requests that ask for them.

Bodies are canonical JSON (RFC 8785) and are read by making them anew from their values: a leaf
that is spelled in any other way is refused. Kinds: ``hashedrekord`` 0.0.2 (written to Rekor v2 and
to the embedded log), ``dsse`` 0.0.1 (written to Rekor v1), ``dsse`` 0.0.2 (read only: early logs of
Rekor v2 hold some).
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any, Final, Protocol, Self

from nix_seed.core import canonical_json
from nix_seed.core.errors import InputError
from nix_seed.formats.tlog.entry import Members
from nix_seed.formats.tlog.note import encode_base64

ECDSA_P256: Final = "PKIX_ECDSA_P256_SHA_256"
_SHA256 = "SHA2_256"
_MOST_SIGNATURES = 16
_DETAILS = (
    ECDSA_P256,
    *("PKIX_ECDSA_P384_SHA_384", "PKIX_ECDSA_P521_SHA_512", "PKIX_ED25519", "PKIX_ED25519_PH"),
    *(f"PKIX_RSA_PKCS1V15_{bits}_SHA256" for bits in (2048, 3072, 4096)),
)


@dataclass(frozen=True, slots=True)
class Verifier:
    """What verifies a signature: a SubjectPublicKeyInfo or an X.509 certificate, in DER."""

    der: bytes
    is_certificate: bool = False
    key_details: str = ECDSA_P256

    @classmethod
    def _read(cls, found: Members) -> Self:
        kinds = ("publicKey", "x509Certificate")
        given = [kind for kind in kinds if found.has(kind)]
        if len(given) != 1:
            raise InputError("a verifier is either a publicKey or an x509Certificate")
        der = found.inside(given[0], "rawBytes").base64("rawBytes")
        return cls(der, given[0] == kinds[1], found.text("keyDetails", *_DETAILS))

    def to_json(self) -> dict[str, Any]:
        """Return the object as Rekor v2 spells it."""
        name = "x509Certificate" if self.is_certificate else "publicKey"
        return {name: {"rawBytes": encode_base64(self.der)}, "keyDetails": self.key_details}

    @property
    def pem(self) -> bytes:
        """The PEM that Rekor v1 keeps."""
        label = "CERTIFICATE" if self.is_certificate else "PUBLIC KEY"
        lines = "\n".join(wrap(encode_base64(self.der), 64))
        return f"-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n".encode()


@dataclass(frozen=True, slots=True)
class LoggedSignature:
    """A signature as its log entry must have it.

    *pae_digest* is the SHA-256 of the signed bytes (the envelope's pre-authentication encoding),
    *payload_digest* that of the payload alone.
    """

    pae_digest: bytes
    payload_digest: bytes
    signature: bytes
    verifier: Verifier


class LogBody(Protocol):
    """A body of one of the known kinds; *kind* is its name and version."""

    @property
    def kind(self) -> tuple[str, str]:
        """Name and version, ``("hashedrekord", "0.0.2")``."""
        ...

    def dump(self) -> bytes:
        """Return its canonical bytes: the leaf."""
        ...

    def differs(self, logged: LoggedSignature) -> str | None:
        """Return what of *logged* it does not record, or None if it records it."""
        ...


@dataclass(frozen=True, slots=True)
class HashedRekord:
    """``hashedrekord`` 0.0.2: the digest of what was signed, the signature and its verifier."""

    digest: bytes
    signature: bytes
    verifier: Verifier

    @classmethod
    def of(cls, logged: LoggedSignature) -> Self:
        """Return the body that *logged* gets."""
        return cls(logged.pae_digest, logged.signature, logged.verifier)

    @classmethod
    def _read(cls, spec: Members) -> Self:
        inner = spec.inside("hashedRekordV002", "data", "signature")
        data = inner.inside("data", "algorithm", "digest")
        data.text("algorithm", _SHA256)
        return cls(data.base64("digest", 32), *_signature(inner, "signature"))

    @property
    def kind(self) -> tuple[str, str]:
        """Name and version."""
        return ("hashedrekord", "0.0.2")

    def dump(self) -> bytes:
        """Return the leaf."""
        inner = {
            "data": {"algorithm": _SHA256, "digest": encode_base64(self.digest)},
            "signature": _signature_json(self.signature, self.verifier),
        }
        return _body("hashedrekord", "0.0.2", {"hashedRekordV002": inner})

    def differs(self, logged: LoggedSignature) -> str | None:
        """Return what of *logged* it does not record."""
        if self.digest != logged.pae_digest:
            return "its digest is of other signed bytes"
        return _differs([(self.signature, self.verifier)], logged)


@dataclass(frozen=True, slots=True)
class DsseV002:
    """``dsse`` 0.0.2: the digest of the payload, the signatures and their verifiers."""

    payload_digest: bytes
    signatures: tuple[tuple[bytes, Verifier], ...]

    @classmethod
    def _read(cls, spec: Members) -> Self:
        inner = spec.inside("dsseV002", "payloadHash", "signatures")
        digest = inner.inside("payloadHash", "algorithm", "digest")
        digest.text("algorithm", _SHA256)
        items = [Members({"each": item}, "signatures", "each") for item in _some(inner)]
        return cls(digest.base64("digest", 32), tuple(_signature(item, "each") for item in items))

    @property
    def kind(self) -> tuple[str, str]:
        """Name and version."""
        return ("dsse", "0.0.2")

    def dump(self) -> bytes:
        """Return the leaf."""
        inner = {
            "payloadHash": {"algorithm": _SHA256, "digest": encode_base64(self.payload_digest)},
            "signatures": [_signature_json(*each) for each in self.signatures],
        }
        return _body("dsse", "0.0.2", {"dsseV002": inner})

    def differs(self, logged: LoggedSignature) -> str | None:
        """Return what of *logged* it does not record."""
        if self.payload_digest != logged.payload_digest:
            return "it is of another payload"
        return _differs(self.signatures, logged)


@dataclass(frozen=True, slots=True)
class DsseV001:
    """``dsse`` 0.0.1 of Rekor v1; *envelope_digest* is of the JSON as it was sent there."""

    envelope_digest: bytes
    payload_digest: bytes
    signatures: tuple[tuple[bytes, bytes], ...]
    """Each signature with the PEM of its verifier."""

    @classmethod
    def _read(cls, spec: Members) -> Self:
        digests = []
        for name in ("envelopeHash", "payloadHash"):
            digest = spec.inside(name, "algorithm", "value")
            digest.text("algorithm", "sha256")
            digests.append(digest.hex("value"))
        items = [Members(item, "signatures", "signature", "verifier") for item in _some(spec)]
        pairs = ((item.base64("signature"), item.base64("verifier")) for item in items)
        return cls(digests[0], digests[1], tuple(pairs))

    @property
    def kind(self) -> tuple[str, str]:
        """Name and version."""
        return ("dsse", "0.0.1")

    def dump(self) -> bytes:
        """Return the leaf."""
        spec = {
            "envelopeHash": {"algorithm": "sha256", "value": self.envelope_digest.hex()},
            "payloadHash": {"algorithm": "sha256", "value": self.payload_digest.hex()},
            "signatures": [
                {"signature": encode_base64(signature), "verifier": encode_base64(pem)}
                for signature, pem in self.signatures
            ],
        }
        return _body("dsse", "0.0.1", spec)

    def differs(self, logged: LoggedSignature) -> str | None:
        """Return what of *logged* it does not record."""
        if self.payload_digest != logged.payload_digest:
            return "it is of another payload"
        pems = [pem for signature, pem in self.signatures if signature == logged.signature]
        if not pems:
            return "it holds another signature"
        return None if logged.verifier.pem in pems else "it names another key or certificate"


def parse_body(data: bytes, what: str) -> LogBody:
    """Read a leaf of a known kind; any but its one spelling is refused."""
    found = Members(canonical_json.loads(data, what=what), what, "apiVersion", "kind", "spec")
    kind = (found.text("kind"), found.text("apiVersion"))
    body: LogBody
    if kind == ("hashedrekord", "0.0.2"):
        body = HashedRekord._read(found.inside("spec", "hashedRekordV002"))
    elif kind == ("dsse", "0.0.2"):
        body = DsseV002._read(found.inside("spec", "dsseV002"))
    elif kind == ("dsse", "0.0.1"):
        members = ("envelopeHash", "payloadHash", "signatures")
        body = DsseV001._read(found.inside("spec", *members))
    else:
        raise InputError(f"{what} is of the kind {kind[0][:40]} {kind[1][:40]}, which is not read")
    if body.dump() != data:
        raise InputError(f"{what} is not canonical JSON")
    return body


def request_v2(body: HashedRekord) -> bytes:
    """Return what ``POST /api/v2/log/entries`` takes."""
    request = {
        "digest": encode_base64(body.digest),
        "signature": _signature_json(body.signature, body.verifier),
    }
    return canonical_json.dumps({"hashedRekordRequestV002": request})


def parse_request(data: bytes) -> HashedRekord:
    """Read what ``POST /api/v2/log/entries`` is given."""
    what = "the request"
    found = Members(canonical_json.loads(data, what=what), what, "hashedRekordRequestV002")
    request = found.inside("hashedRekordRequestV002", "digest", "signature")
    return HashedRekord(request.base64("digest", 32), *_signature(request, "signature"))


def request_v1(envelope: bytes, verifiers: Sequence[Verifier]) -> bytes:
    """Return what ``POST /api/v1/log/entries`` takes; *envelope* is the DSSE envelope's JSON."""
    content = {
        "envelope": envelope.decode(),
        "verifiers": [encode_base64(verifier.pem) for verifier in verifiers],
    }
    return _body("dsse", "0.0.1", {"proposedContent": content})


def _body(kind: str, version: str, spec: dict[str, Any]) -> bytes:
    return canonical_json.dumps({"apiVersion": version, "kind": kind, "spec": spec})


def _signature(found: Members, name: str) -> tuple[bytes, Verifier]:
    signature = found.inside(name, "content", "verifier")
    verifier = signature.inside("verifier", "publicKey", "x509Certificate", "keyDetails")
    return signature.base64("content"), Verifier._read(verifier)


def _signature_json(signature: bytes, verifier: Verifier) -> dict[str, Any]:
    content = base64.b64encode(signature).decode()
    return {"content": content, "verifier": verifier.to_json()}


def _some(found: Members) -> list[Any]:
    items: list[Any] = found.required("signatures", list)
    if not 0 < len(items) <= _MOST_SIGNATURES:
        raise InputError(f"an entry has {len(items)} signatures; 1 to {_MOST_SIGNATURES} are read")
    return items


def _differs(signatures: Sequence[tuple[bytes, Verifier]], logged: LoggedSignature) -> str | None:
    verifiers = [verifier for signature, verifier in signatures if signature == logged.signature]
    if not verifiers:
        return "it holds another signature"
    mine = (logged.verifier.der, logged.verifier.is_certificate)
    if mine not in [(verifier.der, verifier.is_certificate) for verifier in verifiers]:
        return "it names another key or certificate"
    return None
