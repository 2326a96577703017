"""Log entries: ``TransparencyLogEntry`` (sigstore_rekor.proto, as JSON), and what their leaves say.

The JSON a log returned goes into bundles verbatim; this reads it and makes our own log's. No member
may be unknown.

A leaf is an entry body: canonical JSON (RFC 8785), read by making it anew from its values, so that
one spelled in any other way is refused. Kinds: ``hashedrekord`` 0.0.2 (written to Rekor v2 and to
the embedded log), ``dsse`` 0.0.1 (written to Rekor v1), ``dsse`` 0.0.2 (read only: early logs of
Rekor v2 hold some). The requests that ask a log for these are made here, too.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from textwrap import wrap
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from nix_seed.core import canonical_json
from nix_seed.core.declared import Declared, HexHash, SomeBytes, at, bytes_of, text_of
from nix_seed.core.digests import to_base64
from nix_seed.core.errors import InputError, foreign
from nix_seed.core.values import dataclass
from nix_seed.formats.tlog.merkle import HASH_SIZE
from nix_seed.formats.tlog.note import SignedCheckpoint

_INT64 = re.compile(r"0|[1-9][0-9]{0,18}")
_HASHES: Final = (0, 64)  # in a proof: a tree has no more than 2 ** 63 leaves


def _int64(text: str) -> int:
    """Read an int64 as protobuf's JSON writes it: a decimal string."""
    if not _INT64.fullmatch(text) or int(text) >= 1 << 63:
        raise ValueError(f"is {text[:40]!r}, which is no count")
    return int(text)


Hash = Annotated[bytes, bytes_of(HASH_SIZE)]
_Int64 = Annotated[int, text_of(_int64)]
_Text = Annotated[bytes, text_of(str.encode, bytes.decode)]


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """*hashes* lead from leaf *index* to *root* of a tree of *size*, which *checkpoint* signs."""

    closed: ClassVar = True

    index: _Int64 = field(metadata=at("logIndex", absent=0))
    root: Hash = field(metadata=at("rootHash"))
    size: _Int64 = field(metadata=at("treeSize", absent=0))
    hashes: tuple[Hash, ...] = field(metadata=at(absent=(), sizes=_HASHES))
    checkpoint: _Text = field(metadata=at("checkpoint.envelope"))


@dataclass(frozen=True, slots=True)
class LogEntry(Declared):
    """A log entry. *promise* is Rekor v1's signed entry timestamp, over *integrated_time* too.

    *log_id* is None where it is absent; *integrated_time* is in seconds since 1970, 0 for none.
    """

    closed: ClassVar = True

    index: _Int64 = field(metadata=at("logIndex", absent=0))
    log_id: SomeBytes | None = field(metadata=at("logId.keyId"))
    kind: str = field(metadata=at("kindVersion.kind"))
    version: str = field(metadata=at("kindVersion.version"))
    integrated_time: _Int64 = field(metadata=at(absent=0))
    promise: SomeBytes | None = field(metadata=at("inclusionPromise.signedEntryTimestamp"))
    proof: InclusionProof | None = field(metadata=at("inclusionProof"))
    body: SomeBytes = field(metadata=at("canonicalizedBody"))


def promised_bytes(entry: LogEntry) -> bytes:
    """Return what Rekor v1's signed entry timestamp is over."""
    value = {
        "body": to_base64(entry.body),
        "integratedTime": entry.integrated_time,
        "logID": (entry.log_id or b"").hex(),
        "logIndex": entry.index,
    }
    return canonical_json.dumps(value)


@dataclass(frozen=True, slots=True)
class _ProofV1:
    closed: ClassVar = True

    checkpoint: _Text
    hashes: tuple[HexHash, ...] = field(metadata=at(sizes=_HASHES))
    log_index: int
    root_hash: HexHash
    tree_size: int


@dataclass(frozen=True, slots=True)
class _EntryV1(Declared):
    """``LogEntry`` of Rekor v1's API, the object under the UUID."""

    closed: ClassVar = True

    body: SomeBytes
    integrated_time: int
    log_id: HexHash = field(metadata=at("logID"))
    log_index: int
    promise: SomeBytes = field(metadata=at("verification.signedEntryTimestamp"))
    proof: _ProofV1 = field(metadata=at("verification.inclusionProof"))
    attestation: Any = None


@dataclass(frozen=True, slots=True)
class BodyHead(Declared):
    """Which kind of body a leaf is, and its *spec*, unread."""

    closed: ClassVar = True

    kind: str
    version: str = field(metadata=at("apiVersion"))
    spec: Any


def entry_from_v1(value: Mapping[str, Any], where: str) -> LogEntry:
    """Read one entry of Rekor v1's API."""
    found = _EntryV1.from_json(value, where)
    proof, head = found.proof, BodyHead.parse(found.body, where)
    SignedCheckpoint.parse(proof.checkpoint, f"{where}, checkpoint")
    return LogEntry(
        index=found.log_index,
        log_id=found.log_id,
        kind=head.kind,
        version=head.version,
        integrated_time=found.integrated_time,
        promise=found.promise,
        proof=InclusionProof(
            proof.log_index, proof.root_hash, proof.tree_size, proof.hashes, proof.checkpoint
        ),
        body=found.body,
    )


ECDSA_P256: Final = "PKIX_ECDSA_P256_SHA_256"
KeyDetails = Literal[
    "PKIX_ECDSA_P256_SHA_256",
    "PKIX_ECDSA_P384_SHA_384",
    "PKIX_ECDSA_P521_SHA_512",
    "PKIX_ED25519",
    "PKIX_ED25519_PH",
    "PKIX_RSA_PKCS1V15_2048_SHA256",
    "PKIX_RSA_PKCS1V15_3072_SHA256",
    "PKIX_RSA_PKCS1V15_4096_SHA256",
]
_Sha2 = Literal["SHA2_256"]
_Sha256 = Literal["sha256"]
_SOME = (1, 16)  # signatures


@dataclass(frozen=True, slots=True)
class Verifier(Declared):
    """What verifies a signature: a SubjectPublicKeyInfo or an X.509 certificate, in DER."""

    closed: ClassVar = True

    public_key: SomeBytes | None = field(default=None, metadata=at("publicKey.rawBytes", omit=True))
    certificate: SomeBytes | None = field(
        default=None, metadata=at("x509Certificate.rawBytes", omit=True)
    )
    key_details: KeyDetails = ECDSA_P256

    def __post_init__(self) -> None:
        if (self.public_key is None) == (self.certificate is None):
            raise InputError("a verifier is either a publicKey or an x509Certificate")

    @property
    def der(self) -> bytes:
        """The bytes of either."""
        return self.certificate or self.public_key or b""

    @property
    def pem(self) -> bytes:
        """The PEM that Rekor v1 keeps."""
        label = "PUBLIC KEY" if self.certificate is None else "CERTIFICATE"
        lines = "\n".join(wrap(to_base64(self.der), 64))
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


class _Body(Declared):
    """Written as what a leaf holds; in JSON it is the leaf's ``spec``."""

    __slots__ = ()
    closed: ClassVar = True
    kind: ClassVar[tuple[str, str]]

    def dump(self) -> bytes:
        """Return the leaf."""
        return _leaf(self.kind, self.to_json())


@dataclass(frozen=True, slots=True)
class HashedRekord(_Body):
    """``hashedrekord`` 0.0.2: the digest of what was signed, the signature and its verifier."""

    kind: ClassVar = ("hashedrekord", "0.0.2")

    digest: Hash = field(metadata=at("hashedRekordV002.data.digest"))
    signature: SomeBytes = field(metadata=at("hashedRekordV002.signature.content"))
    verifier: Verifier = field(metadata=at("hashedRekordV002.signature.verifier"))
    algorithm: _Sha2 = field(default="SHA2_256", metadata=at("hashedRekordV002.data.algorithm"))

    @classmethod
    def of(cls, logged: LoggedSignature) -> Self:
        """Return the body that *logged* gets."""
        return cls(logged.pae_digest, logged.signature, logged.verifier)

    def differs(self, logged: LoggedSignature) -> str | None:
        """Return what of *logged* it does not record."""
        if self.digest != logged.pae_digest:
            return "its digest is of other signed bytes"
        return _differs([(self.signature, self.verifier)], logged)

    def is_signed(self) -> bool | None:
        """Whether the signature is the verifier's; None for keys that sign no bare hash.

        ``InputError`` for what is neither a public key nor a certificate.
        """
        failed = "the verifier is neither a public key nor a certificate"
        with foreign(failed, as_=InputError, quoted=False):
            if self.verifier.certificate is not None:
                key: object = x509.load_der_x509_certificate(self.verifier.der).public_key()
            else:
                key = serialization.load_der_public_key(self.verifier.der)
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
            return None
        try:
            hashed = ec.ECDSA(utils.Prehashed(hashes.SHA256()))
            key.verify(self.signature, self.digest, hashed)
        except InvalidSignature:
            return False
        return True


class _SignatureV002(NamedTuple):
    content: SomeBytes
    verifier: Verifier


@dataclass(frozen=True, slots=True)
class DsseV002(_Body):
    """``dsse`` 0.0.2: the digest of the payload, the signatures and their verifiers."""

    kind: ClassVar = ("dsse", "0.0.2")

    payload_digest: Hash = field(metadata=at("dsseV002.payloadHash.digest"))
    signatures: Annotated[tuple[tuple[bytes, Verifier], ...], tuple[_SignatureV002, ...]] = field(
        metadata=at("dsseV002.signatures", sizes=_SOME)
    )
    algorithm: _Sha2 = field(default="SHA2_256", metadata=at("dsseV002.payloadHash.algorithm"))

    def differs(self, logged: LoggedSignature) -> str | None:
        """Return what of *logged* it does not record."""
        if self.payload_digest != logged.payload_digest:
            return "it is of another payload"
        return _differs(self.signatures, logged)


class _SignatureV001(NamedTuple):
    signature: SomeBytes
    verifier: SomeBytes


@dataclass(frozen=True, slots=True)
class DsseV001(_Body):
    """``dsse`` 0.0.1 of Rekor v1; *envelope_digest* is of the JSON as it was sent there."""

    kind: ClassVar = ("dsse", "0.0.1")

    envelope_digest: HexHash = field(metadata=at("envelopeHash.value"))
    payload_digest: HexHash = field(metadata=at("payloadHash.value"))
    signatures: Annotated[tuple[tuple[bytes, bytes], ...], tuple[_SignatureV001, ...]] = field(
        metadata=at(sizes=_SOME)
    )
    """Each signature with the PEM of its verifier."""
    envelope_algorithm: _Sha256 = field(default="sha256", metadata=at("envelopeHash.algorithm"))
    payload_algorithm: _Sha256 = field(default="sha256", metadata=at("payloadHash.algorithm"))

    def differs(self, logged: LoggedSignature) -> str | None:
        """Return what of *logged* it does not record."""
        if self.payload_digest != logged.payload_digest:
            return "it is of another payload"
        pems = [pem for signature, pem in self.signatures if signature == logged.signature]
        if not pems:
            return "it holds another signature"
        return None if logged.verifier.pem in pems else "it names another key or certificate"


LogBody = HashedRekord | DsseV002 | DsseV001
_KINDS: Final[dict[tuple[str, str], type[LogBody]]] = {
    each.kind: each for each in (HashedRekord, DsseV002, DsseV001)
}


def parse_body(data: bytes, label: str) -> LogBody:
    """Read a leaf of a known kind; any but its one spelling is refused."""
    head = BodyHead.parse(data, label)
    kind = _KINDS.get((head.kind, head.version))
    if kind is None:
        named = f"{head.kind[:40]} {head.version[:40]}"
        raise InputError(f"{label} is of the kind {named}, which is not read")
    body = kind.from_json(head.spec, f"{label}, spec")
    if body.dump() != data:
        raise InputError(f"{label} is not canonical JSON")
    return body


@dataclass(frozen=True, slots=True)
class _Request(Declared):
    closed: ClassVar = True

    digest: Hash = field(metadata=at("hashedRekordRequestV002.digest"))
    signature: SomeBytes = field(metadata=at("hashedRekordRequestV002.signature.content"))
    verifier: Verifier = field(metadata=at("hashedRekordRequestV002.signature.verifier"))


def request_v2(body: HashedRekord) -> bytes:
    """Return what ``POST /api/v2/log/entries`` takes."""
    return _Request(body.digest, body.signature, body.verifier).dump()


def parse_request(data: bytes) -> HashedRekord:
    """Read what ``POST /api/v2/log/entries`` is given."""
    found = _Request.parse(data, "the request")
    return HashedRekord(found.digest, found.signature, found.verifier)


def request_v1(envelope: bytes, verifiers: Sequence[Verifier]) -> bytes:
    """Return what ``POST /api/v1/log/entries`` takes; *envelope* is the DSSE envelope's JSON."""
    content = {
        "envelope": envelope.decode(),
        "verifiers": [to_base64(verifier.pem) for verifier in verifiers],
    }
    return _leaf(DsseV001.kind, {"proposedContent": content})


def _leaf(kind: tuple[str, str], spec: dict[str, Any]) -> bytes:
    return canonical_json.dumps({"apiVersion": kind[1], "kind": kind[0], "spec": spec})


def _differs(signatures: Sequence[tuple[bytes, Verifier]], logged: LoggedSignature) -> str | None:
    verifiers = [verifier for signature, verifier in signatures if signature == logged.signature]
    if not verifiers:
        return "it holds another signature"
    mine = (logged.verifier.public_key, logged.verifier.certificate)
    if mine not in [(verifier.public_key, verifier.certificate) for verifier in verifiers]:
        return "it names another key or certificate"
    return None
