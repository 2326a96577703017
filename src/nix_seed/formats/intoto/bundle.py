"""Sigstore bundles: a signature with all that a verifier needs (sigstore_bundle.proto, as JSON).

Version 0.3 is written; 0.1 and 0.2 are read as well. Log entries are kept as they came and judged
elsewhere: this room knows only where they lie.

What cosign 2 writes is made into a bundle, so that one way judges all: an image at the tag
``sha256-<hex>.att``, each layer a DSSE envelope, and what verifies it in the layer's annotations.

``Unverified`` is what a bundle says of itself, whoever signed it: no signature, signer or log is
looked at. It only sorts what was found, and tells where to look next: whoever lies here has it
judged as what it is not. What decides anything is judged by ``trust.rules.bundle`` instead.
"""

from collections.abc import Mapping
from dataclasses import field
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, Self

from nix_seed.core import declared
from nix_seed.core.declared import Declared, at
from nix_seed.core.digests import Digest, exact_base64, to_base64
from nix_seed.core.errors import InputError, foreign
from nix_seed.core.values import dataclass
from nix_seed.formats.intoto import statement as intoto

BUNDLE_V03: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
_V03 = (BUNDLE_V03, "application/vnd.dev.sigstore.bundle+json;version=0.3")
_OLDER = tuple(f"application/vnd.dev.sigstore.bundle+json;version=0.{minor}" for minor in (1, 2))

_MOST = 32  # log entries, and timestamps
_KEYS = ("publicKey", "certificate", "x509CertificateChain")


@dataclass(frozen=True, slots=True)
class PublicKeyHint:
    """The signature is a key's; *hint* says which, unsigned: base64 of the SPKI's SHA-256."""

    hint: str = field(metadata=at(absent=""))


@dataclass(frozen=True, slots=True)
class Certificate:
    """The signer's X.509 certificate in DER; *chain* holds what older bundles put beside it."""

    der: bytes
    chain: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class _Sha2:
    digest: bytes
    algorithm: Literal["SHA2_256"] = "SHA2_256"


_SHA2 = declared.Codec(
    lambda found, name, where: declared.read(_Sha2, found, f"{where}, {name}").digest,
    lambda digest: declared.write(_Sha2(digest)),
)


@dataclass(frozen=True, slots=True)
class MessageSignature:
    """A signature over an artifact instead of an envelope; *digest* is an unsigned SHA-256."""

    signature: bytes
    digest: Annotated[bytes, _SHA2] | None = field(
        default=None, metadata=at("messageDigest", omit=True)
    )


@dataclass(frozen=True, slots=True)
class _Raw:
    raw_bytes: bytes


@dataclass(frozen=True, slots=True)
class _Stamp:
    signed_timestamp: bytes


@dataclass(frozen=True, slots=True)
class _Material:
    """``VerificationMaterial``."""

    public_key: PublicKeyHint | None = field(default=None, metadata=at(omit=True))
    certificate: _Raw | None = field(default=None, metadata=at(omit=True))
    chain: tuple[_Raw, ...] | None = field(
        default=None, metadata=at("x509CertificateChain.certificates", omit=True)
    )
    tlog_entries: tuple[Mapping[str, Any], ...] = field(
        default=(), metadata=at(absent=(), sizes=(0, _MOST))
    )
    timestamps: tuple[_Stamp, ...] = field(
        default=(),
        metadata=at("timestampVerificationData.rfc3161Timestamps", omit=True, sizes=(0, _MOST)),
    )

    def __post_init__(self) -> None:
        if [self.public_key, self.certificate, self.chain].count(None) != 2:
            raise InputError(f"exactly one of {', '.join(_KEYS)} is wanted")


@dataclass(frozen=True, slots=True)
class Bundle(Declared):
    """A bundle, as its JSON has it: over an envelope, or over an artifact."""

    media_type: str
    verification_material: _Material
    dsse_envelope: intoto.Envelope | None = field(default=None, metadata=at(omit=True))
    message_signature: MessageSignature | None = field(default=None, metadata=at(omit=True))

    def __post_init__(self) -> None:
        if self.media_type not in (*_V03, *_OLDER):
            raise InputError(f"mediaType {self.media_type!r} is no bundle version known here")
        if (self.dsse_envelope is None) == (self.message_signature is None):
            raise InputError("exactly one of dsseEnvelope and messageSignature is wanted")
        held = self.verification_material
        name = _KEYS[2] if held.certificate is None else _KEYS[1]
        if held.public_key is None and (name == _KEYS[1]) is not (self.media_type in _V03):
            raise InputError(f"{name} does not belong in a bundle of type {self.media_type}")
        if held.chain == ():
            raise InputError(f"{name} holds no certificate")

    @classmethod
    def of(
        cls,
        envelope: intoto.Envelope,
        material: PublicKeyHint | Certificate,
        entries: tuple[Mapping[str, Any], ...] = (),
        timestamps: tuple[bytes, ...] = (),
    ) -> Self:
        """Return the bundle of version 0.3 around *envelope*; a certificate goes without chain."""
        held: dict[str, Any] = {"public_key": material}
        if isinstance(material, Certificate):
            held = {"certificate": _Raw(material.der)}
        stamps = tuple(map(_Stamp, timestamps))
        return cls(BUNDLE_V03, _Material(**held, tlog_entries=entries, timestamps=stamps), envelope)

    @property
    def envelope(self) -> intoto.Envelope:
        """The envelope; ``InputError`` for a bundle over a bare artifact."""
        if self.dsse_envelope is None:
            raise InputError("the bundle holds a signature over an artifact, and no envelope")
        return self.dsse_envelope

    @property
    def material(self) -> PublicKeyHint | Certificate:
        """Who signed, as the bundle says."""
        held = self.verification_material
        if held.public_key is not None:
            return held.public_key
        ders = [each.raw_bytes for each in held.chain or [held.certificate] if each]
        return Certificate(ders[0], tuple(ders[1:]))

    @property
    def tlog_entries(self) -> tuple[Mapping[str, Any], ...]:
        """``TransparencyLogEntry`` objects, verbatim."""
        return self.verification_material.tlog_entries

    @property
    def timestamps(self) -> tuple[bytes, ...]:
        """RFC 3161 responses in DER, over the bytes of the signature."""
        return tuple(each.signed_timestamp for each in self.verification_material.timestamps)


ENVELOPE_LAYER: Final = "application/vnd.dsse.envelope.v1+json"
_CERTIFICATE = "dev.sigstore.cosign/certificate"
_ENTRY = "dev.sigstore.cosign/bundle"
_TIMESTAMP = "dev.sigstore.cosign/rfc3161timestamp"
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def attestation_tag(subject: Digest) -> str:
    """Return ``sha256-<hex>.att``."""
    return f"sha256-{subject.hex}.att"


def bundle_of_layer(text: bytes, annotations: Mapping[str, str], label: str) -> Bundle:
    """Return what a layer and its annotations say as a bundle; nothing of it is verified.

    The log entry has a signed promise and no proof of inclusion: cosign 2 keeps no more.
    """
    certificate = annotations.get(_CERTIFICATE)
    return Bundle.of(
        intoto.Envelope.parse(text, label),
        Certificate(_cosign_der(certificate, label)) if certificate else PublicKeyHint(""),
        _cosign_entries(annotations.get(_ENTRY), label),
        _cosign_timestamps(annotations.get(_TIMESTAMP), label),
    )


def _cosign_der(pem: str, label: str) -> bytes:
    lines = [line.strip() for line in pem.strip().splitlines()]
    failed = f"{label}: {_CERTIFICATE} is not one certificate in PEM"
    if len(lines) < 3 or lines[0] != _BEGIN or lines[-1] != _END:
        raise InputError(failed)
    with foreign(failed, as_=InputError, quoted=False):
        return exact_base64("".join(lines[1:-1]))


@dataclass(frozen=True, slots=True)
class _CosignEntry(Declared):
    """What cosign keeps of a log entry: Rekor v1's answer, without its proof."""

    body: bytes = field(metadata=at("Payload.body"))
    index: int = field(metadata=at("Payload.logIndex"))
    log_id: declared.HexHash = field(metadata=at("Payload.logID"))
    time: int = field(metadata=at("Payload.integratedTime"))
    promise: str = field(metadata=at("SignedEntryTimestamp"))


@dataclass(frozen=True, slots=True)
class _Kind(Declared):
    kind: str
    api_version: str


@dataclass(frozen=True, slots=True)
class _CosignStamp(Declared):
    stamp: bytes = field(metadata=at("SignedRFC3161Timestamp"))


def _cosign_entries(text: str | None, label: str) -> tuple[Mapping[str, Any], ...]:
    if not text:
        return ()
    where = f"{label}, {_ENTRY}"
    said = _CosignEntry.parse(text.encode(), where)
    kind = _Kind.parse(said.body, f"{where}, body")
    return (
        {
            "logIndex": str(said.index),
            "logId": {"keyId": to_base64(said.log_id)},
            "kindVersion": {"kind": kind.kind, "version": kind.api_version},
            "integratedTime": str(said.time),
            "inclusionPromise": {"signedEntryTimestamp": said.promise},
            "canonicalizedBody": to_base64(said.body),
        },
    )


def _cosign_timestamps(text: str | None, label: str) -> tuple[bytes, ...]:
    return (_CosignStamp.parse(text.encode(), f"{label}, {_TIMESTAMP}").stamp,) if text else ()


LARGEST_BUNDLE = 4 << 20  # bytes


_WHAT = "a bundle that is not verified"


@dataclass(frozen=True, slots=True)
class Unverified:
    """An unverified envelope: the SHA-256 of what is *signed*, and of the *payload*.

    The payload names a record. *build* and *promotion* are what it says it states; None if it
    states another thing, or none well.
    """

    signed: Digest
    payload: Digest
    predicate_type: str | None
    build: intoto.BuildPredicate | None
    promotion: intoto.PromotionPredicate | None

    @classmethod
    @lru_cache(1024)
    def read(cls, text: bytes) -> Self | None:
        """Read the bytes of a bundle; None for what is none, or holds no envelope."""
        try:
            envelope = Bundle.parse(text, _WHAT).dsse_envelope
        except InputError:
            return None
        if envelope is None:
            return None
        kind, build, promotion = None, None, None
        try:
            statement = intoto.Statement.parse(envelope.payload, _WHAT)
            kind = statement.predicate_type
            if kind == intoto.BUILD_TYPE:
                build = intoto.check_build(statement, _WHAT)
            if kind == intoto.PROMOTION_TYPE:
                promotion = intoto.check_promotion(statement, _WHAT)
        except InputError:
            pass
        signed, payload = Digest.of(envelope.pae), Digest.of(envelope.payload)
        return cls(signed, payload, kind, build, promotion)
