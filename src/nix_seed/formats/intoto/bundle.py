"""Sigstore bundles: a signature with all that a verifier needs (sigstore_bundle.proto, as JSON).

Version 0.3 is written; 0.1 and 0.2 are read as well. Log entries are kept as they came and judged
elsewhere: this room knows only where they lie.

The attestations that cosign 2 writes: an image at the tag ``sha256-<hex>.att``.

Each layer is a DSSE envelope; what verifies it lies in the layer's annotations. Read only, and made
into a bundle, so that one way judges all.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from nix_seed.core import canonical_json
from nix_seed.core.declared import base64_member, member, object_of, optional_member
from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError
from nix_seed.formats.intoto.statement import Envelope

BUNDLE_V03: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
_V03 = (BUNDLE_V03, "application/vnd.dev.sigstore.bundle+json;version=0.3")
_OLDER = tuple(f"application/vnd.dev.sigstore.bundle+json;version=0.{minor}" for minor in (1, 2))

_MOST_ENTRIES = 32
_KEYS = ("publicKey", "certificate", "x509CertificateChain")


@dataclass(frozen=True, slots=True)
class PublicKeyHint:
    """The signature is a key's; *hint* says which, unsigned: base64 of the SPKI's SHA-256."""

    hint: str


@dataclass(frozen=True, slots=True)
class Certificate:
    """The signer's X.509 certificate in DER; *chain* holds what older bundles put beside it."""

    der: bytes
    chain: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class MessageSignature:
    """A signature over an artifact instead of an envelope; *digest* is an unsigned SHA-256."""

    signature: bytes
    digest: bytes | None = None


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle. *tlog_entries* are ``TransparencyLogEntry`` objects, verbatim.

    *timestamps* are RFC 3161 responses in DER, over the bytes of the signature.
    """

    content: Envelope | MessageSignature
    material: PublicKeyHint | Certificate
    tlog_entries: tuple[Mapping[str, Any], ...] = ()
    timestamps: tuple[bytes, ...] = ()
    media_type: str = BUNDLE_V03

    @classmethod
    def parse(cls, text: bytes, what: str) -> Self:
        """Read a bundle's JSON; ``InputError`` names *what* and the member that is wrong."""
        value = object_of(
            canonical_json.loads(text, what=what),
            what,
            *("mediaType", "verificationMaterial", "dsseEnvelope", "messageSignature"),
        )
        media_type = member(value, "mediaType", str, what)
        if media_type not in (*_V03, *_OLDER):
            raise InputError(f"{what}: mediaType {media_type!r} is no bundle version known here")
        where = f"{what}, verificationMaterial"
        material = object_of(
            member(value, "verificationMaterial", dict, what),
            where,
            *(*_KEYS, "tlogEntries", "timestampVerificationData"),
        )
        return cls(
            _content(value, what),
            _material(material, media_type, where),
            _entries(material, where),
            _timestamps(material, where),
            media_type,
        )

    @property
    def envelope(self) -> Envelope:
        """The envelope; ``InputError`` for a bundle over a bare artifact."""
        if isinstance(self.content, MessageSignature):
            raise InputError("the bundle holds a signature over an artifact, and no envelope")
        return self.content

    def to_json(self) -> dict[str, Any]:
        """Return the object as the specification spells it."""
        material = _material_json(self.material, self.media_type)
        material["tlogEntries"] = [dict(entry) for entry in self.tlog_entries]
        if self.timestamps:
            material["timestampVerificationData"] = {
                "rfc3161Timestamps": [{"signedTimestamp": _b64(item)} for item in self.timestamps]
            }
        value = {"mediaType": self.media_type, "verificationMaterial": material}
        if isinstance(self.content, Envelope):
            return value | {"dsseEnvelope": self.content.to_json()}
        return value | {"messageSignature": _message_json(self.content)}

    def dump(self) -> bytes:
        """Return canonical JSON of the bundle."""
        return canonical_json.dumps(self.to_json())


def _content(value: Mapping[str, Any], what: str) -> Envelope | MessageSignature:
    envelope = optional_member(value, "dsseEnvelope", dict, what)
    message = optional_member(value, "messageSignature", dict, what)
    if (envelope is None) == (message is None):
        raise InputError(f"{what}: exactly one of dsseEnvelope and messageSignature is wanted")
    if message is None:
        return Envelope.from_json(envelope, f"{what}, dsseEnvelope")
    where = f"{what}, messageSignature"
    object_of(message, where, "signature", "messageDigest")
    digest = optional_member(message, "messageDigest", dict, where)
    return MessageSignature(
        base64_member(message, "signature", where),
        None if digest is None else _message_digest(digest, f"{where}, messageDigest"),
    )


def _message_digest(value: Mapping[str, Any], where: str) -> bytes:
    object_of(value, where, "algorithm", "digest")
    if member(value, "algorithm", str, where) != "SHA2_256":
        raise InputError(f"{where}: algorithm must be SHA2_256")
    return base64_member(value, "digest", where)


def _material(value: Mapping[str, Any], media_type: str, where: str) -> PublicKeyHint | Certificate:
    given = [name for name in _KEYS if value.get(name) is not None]
    if len(given) != 1:
        raise InputError(f"{where}: exactly one of {', '.join(_KEYS)} is wanted")
    found = member(value, given[0], dict, where)
    inner = f"{where}, {given[0]}"
    if given[0] == "publicKey":
        object_of(found, inner, "hint")
        return PublicKeyHint(optional_member(found, "hint", str, inner) or "")
    if (given[0] == "certificate") is not (media_type in _V03):
        raise InputError(f"{where}: {given[0]} does not belong in a bundle of type {media_type}")
    if given[0] == "certificate":
        return Certificate(_der(found, inner))
    object_of(found, inner, "certificates")
    chain = [
        _der(item, f"{inner}[{position}]")
        for position, item in enumerate(member(found, "certificates", list, inner))
    ]
    if not chain:
        raise InputError(f"{inner}: no certificate")
    return Certificate(chain[0], tuple(chain[1:]))


def _der(value: Any, where: str) -> bytes:
    return base64_member(object_of(value, where, "rawBytes"), "rawBytes", where)


def _entries(value: Mapping[str, Any], where: str) -> tuple[Mapping[str, Any], ...]:
    items = optional_member(value, "tlogEntries", list, where) or []
    _check_count(items, f"{where}, tlogEntries")
    return tuple(
        object_of(item, f"{where}, tlogEntries[{position}]") for position, item in enumerate(items)
    )


def _timestamps(value: Mapping[str, Any], where: str) -> tuple[bytes, ...]:
    data = optional_member(value, "timestampVerificationData", dict, where)
    if data is None:
        return ()
    inner = f"{where}, timestampVerificationData"
    object_of(data, inner, "rfc3161Timestamps")
    items = optional_member(data, "rfc3161Timestamps", list, inner) or []
    _check_count(items, inner)
    return tuple(
        base64_member(object_of(item, inner, "signedTimestamp"), "signedTimestamp", inner)
        for item in items
    )


def _check_count(items: Sequence[Any], where: str) -> None:
    if len(items) > _MOST_ENTRIES:
        raise InputError(f"{where}: {len(items)} of them; at most {_MOST_ENTRIES} are read")


def _material_json(material: PublicKeyHint | Certificate, media_type: str) -> dict[str, Any]:
    if isinstance(material, PublicKeyHint):
        return {"publicKey": {"hint": material.hint}}
    if media_type in _V03:
        return {"certificate": {"rawBytes": _b64(material.der)}}
    chain = [{"rawBytes": _b64(der)} for der in (material.der, *material.chain)]
    return {"x509CertificateChain": {"certificates": chain}}


def _message_json(message: MessageSignature) -> dict[str, Any]:
    value: dict[str, Any] = {"signature": _b64(message.signature)}
    if message.digest is not None:
        value["messageDigest"] = {"algorithm": "SHA2_256", "digest": _b64(message.digest)}
    return value


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


ENVELOPE_LAYER: Final = "application/vnd.dsse.envelope.v1+json"
_CERTIFICATE = "dev.sigstore.cosign/certificate"
_ENTRY = "dev.sigstore.cosign/bundle"
_TIMESTAMP = "dev.sigstore.cosign/rfc3161timestamp"
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def attestation_tag(subject: Digest) -> str:
    """Return ``sha256-<hex>.att``."""
    return f"sha256-{subject.hex}.att"


def bundle_of_layer(text: bytes, annotations: Mapping[str, str], what: str) -> Bundle:
    """Return what a layer and its annotations say as a bundle; nothing of it is verified.

    The log entry has a signed promise and no proof of inclusion: cosign 2 keeps no more.
    """
    certificate = annotations.get(_CERTIFICATE)
    return Bundle(
        content=Envelope.parse(text, what),
        material=PublicKeyHint("")
        if not certificate
        else Certificate(_cosign_der(certificate, what)),
        tlog_entries=_cosign_entries(annotations.get(_ENTRY), what),
        timestamps=_cosign_timestamps(annotations.get(_TIMESTAMP), what),
    )


def _cosign_der(pem: str, what: str) -> bytes:
    lines = [line.strip() for line in pem.strip().splitlines()]
    if len(lines) < 3 or lines[0] != _BEGIN or lines[-1] != _END:
        raise InputError(f"{what}: {_CERTIFICATE} is not one certificate in PEM")
    try:
        return base64.b64decode("".join(lines[1:-1]), validate=True)
    except binascii.Error as error:
        raise InputError(f"{what}: {_CERTIFICATE} is not one certificate in PEM") from error


def _cosign_entries(text: str | None, what: str) -> tuple[Mapping[str, Any], ...]:
    if not text:
        return ()
    where = f"{what}, {_ENTRY}"
    value = object_of(canonical_json.loads(text.encode(), what=where), where)
    payload = object_of(member(value, "Payload", dict, where), where)
    body = canonical_json.loads(base64_member(payload, "body", where), what=f"{where}, body")
    kind = object_of(body, f"{where}, body")
    return (
        {
            "logIndex": str(member(payload, "logIndex", int, where)),
            "logId": {"keyId": _base64_of_hex(member(payload, "logID", str, where), where)},
            "kindVersion": {
                "kind": member(kind, "kind", str, where),
                "version": member(kind, "apiVersion", str, where),
            },
            "integratedTime": str(member(payload, "integratedTime", int, where)),
            "inclusionPromise": {
                "signedEntryTimestamp": member(value, "SignedEntryTimestamp", str, where)
            },
            "canonicalizedBody": payload["body"],
        },
    )


def _cosign_timestamps(text: str | None, what: str) -> tuple[bytes, ...]:
    if not text:
        return ()
    where = f"{what}, {_TIMESTAMP}"
    value = object_of(canonical_json.loads(text.encode(), what=where), where)
    return (base64_member(value, "SignedRFC3161Timestamp", where),)


def _base64_of_hex(text: str, where: str) -> str:
    try:
        return base64.b64encode(bytes.fromhex(text)).decode()
    except ValueError as error:
        raise InputError(f"{where}: logID is not hex") from error


LARGEST_BUNDLE = 4 << 20  # bytes
