"""A Sigstore instance in memory: authority, certificate log, Rekor v2's log, timestamp authority.

It shares no code with the product, and its trusted root is what any Sigstore client reads; so what
it issues can be forged, byte by byte, by whoever tests. Timestamps are OpenSSL's.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from support.registries import needs

ISSUER = "https://issuer.example"
SUBJECT = "https://forge.example/owner/project/.ci/seed.yml@refs/heads/main"
ORIGIN = "log.example"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
_V8 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_V1 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_REPOSITORY = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.12")
_SCT = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_P256 = "PKIX_ECDSA_P256_SHA_256"


def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def sign(private: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    return private.sign(data, ec.ECDSA(hashes.SHA256()))


def spki(private: ec.EllipticCurvePrivateKey) -> bytes:
    return private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@dataclass
class PrivateSigstore:
    """The instance; *root* is scratch space for OpenSSL."""

    root: Path
    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    ca_key: ec.EllipticCurvePrivateKey = field(default_factory=key)
    ct_key: ec.EllipticCurvePrivateKey = field(default_factory=key)
    log_key: ec.EllipticCurvePrivateKey = field(default_factory=key)
    tsa_key: ec.EllipticCurvePrivateKey = field(default_factory=key)
    tsa_root_key: ec.EllipticCurvePrivateKey = field(default_factory=key)

    def __post_init__(self) -> None:
        self.ca = self._authority("test authority", self.ca_key)
        self.tsa_root = self._authority("test time root", self.tsa_root_key)
        self.tsa = self._time_certificate()
        self._prepare_openssl()

    def trusted_root(self) -> bytes:
        """The JSON that clients trust."""
        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
                "tlogs": [self._log(self.log_key, f"https://{ORIGIN}")],
                "ctlogs": [self._log(self.ct_key, "https://ct.example")],
                "certificateAuthorities": [self._chain(self.ca)],
                "timestampAuthorities": [self._chain(self.tsa, self.tsa_root)],
            }
        ).encode()

    def bundle(
        self, payload: bytes, *, subject: str = SUBJECT, issuer: str = ISSUER, **names: Any
    ) -> dict[str, Any]:
        """Sign *payload* as that identity, now; return the bundle's JSON."""
        private = key()
        der = self.certify(private.public_key(), subject, issuer, **names)
        encoded = b"DSSEv1 %d %s %d %s" % (
            len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload,
        )  # fmt: skip
        signature = sign(private, encoded)
        verifier = {"x509Certificate": {"rawBytes": b64(der)}}
        return {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "certificate": {"rawBytes": b64(der)},
                "tlogEntries": [self.entry(encoded, signature, verifier)],
                "timestampVerificationData": {
                    "rfc3161Timestamps": [{"signedTimestamp": b64(self.stamp(signature))}]
                },
            },
            "dsseEnvelope": {
                "payload": b64(payload),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{"sig": b64(signature)}],
            },
        }

    def certify(
        self,
        public: Any,
        subject: str,
        issuer: str,
        *,
        more: tuple[str, ...] = (),
        repository: str = "",
        start: timedelta = timedelta(minutes=-1),
    ) -> bytes:
        """Issue a certificate for ten minutes, with the certificate log's promise in it."""
        names = [x509.UniformResourceIdentifier(each) for each in (subject, *more)]
        usage = x509.KeyUsage(True, *[False] * 8)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.ca.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now + start)
            .not_valid_after(self.now + start + timedelta(minutes=10))
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False)
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.ca_key.public_key()), False
            )
            .add_extension(x509.UnrecognizedExtension(_V1, issuer.encode()), False)
            .add_extension(x509.UnrecognizedExtension(_V8, _utf8(issuer)), False)
        )
        if repository:
            named = x509.UnrecognizedExtension(_REPOSITORY, _utf8(repository))
            builder = builder.add_extension(named, False)
        bare = builder.sign(self.ca_key, hashes.SHA256())
        promise = x509.UnrecognizedExtension(_SCT, self._sct(bare.tbs_certificate_bytes))
        done = builder.add_extension(promise, False).sign(self.ca_key, hashes.SHA256())
        return done.public_bytes(Encoding.DER)

    def entry(self, encoded: bytes, signature: bytes, verifier: dict[str, Any]) -> dict[str, Any]:
        """Log a signature over *encoded* as leaf 1 of 3; return the entry as Rekor v2 does."""
        return self.entry_of(hashlib.sha256(encoded).digest(), signature, verifier)

    def entry_of(self, digest: bytes, signature: bytes, verifier: dict[str, Any]) -> dict[str, Any]:
        """Log what Rekor v2 is told: the digest only."""
        body = json.dumps(
            {
                "apiVersion": "0.0.2",
                "kind": "hashedrekord",
                "spec": {
                    "hashedRekordV002": {
                        "data": {
                            "algorithm": "SHA2_256",
                            "digest": b64(digest),
                        },
                        "signature": {
                            "content": b64(signature),
                            "verifier": {"keyDetails": _P256, **verifier},
                        },
                    }
                },
            },
            separators=(",", ":"),
            sort_keys=True,
        ).encode()
        first, leaf, last = (_hash(b"\0", data) for data in (b"first", body, b"last"))
        root = _hash(b"\1", _hash(b"\1", first, leaf), last)
        return {
            "logIndex": "1",
            "logId": {"keyId": b64(hashlib.sha256(spki(self.log_key)).digest())},
            "kindVersion": {"kind": "hashedrekord", "version": "0.0.2"},
            "integratedTime": "0",
            "inclusionProof": {
                "logIndex": "1",
                "rootHash": b64(root),
                "treeSize": "3",
                "hashes": [b64(first), b64(last)],
                "checkpoint": {"envelope": self.checkpoint(3, root)},
            },
            "canonicalizedBody": b64(body),
        }

    def checkpoint(self, size: int, root: bytes) -> str:
        """A checkpoint that the log signed."""
        text = f"{ORIGIN}\n{size}\n{b64(root)}\n"
        name = hashlib.sha256(spki(self.log_key)).digest()[:4]
        return f"{text}\n— {ORIGIN} {b64(name + sign(self.log_key, text.encode()))}\n"

    def stamp(self, data: bytes) -> bytes:
        """An RFC 3161 response over *data*, at the time it is made."""
        (self.root / "data").write_bytes(data)
        self._openssl("ts", "-query", "-data", "data", "-sha256", "-cert", "-out", "query")
        return self.answer((self.root / "query").read_bytes())

    def answer(self, query: bytes) -> bytes:
        """Answer an RFC 3161 request."""
        (self.root / "query").write_bytes(query)
        self._openssl("ts", "-reply", "-config", "ts.cnf", "-queryfile", "query", "-out", "reply")
        return (self.root / "reply").read_bytes()

    def _authority(self, name: str, private: ec.EllipticCurvePrivateKey) -> x509.Certificate:
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        return (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(name))
            .public_key(private.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now - timedelta(days=1))
            .not_valid_after(self.now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(True, None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), False)
            .sign(private, hashes.SHA256())
        )

    def _time_certificate(self) -> x509.Certificate:
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
        return (
            x509.CertificateBuilder()
            .subject_name(_name("test time"))
            .issuer_name(self.tsa_root.subject)
            .public_key(self.tsa_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now - timedelta(days=1))
            .not_valid_after(self.now + timedelta(days=1))
            .add_extension(usage, critical=True)
            .add_extension(x509.KeyUsage(True, *[False] * 8), critical=True)
            .sign(self.tsa_root_key, hashes.SHA256())
        )

    def _sct(self, tbs: bytes) -> bytes:
        """The extension's value (RFC 6962, section 3): a list of one, in an OCTET STRING."""
        time = int(self.now.timestamp() * 1000).to_bytes(8, "big")
        issuer = hashlib.sha256(spki(self.ca_key)).digest()
        said = b"\0\0" + time + b"\0\1" + issuer + len(tbs).to_bytes(3, "big") + tbs + b"\0\0"
        signature = sign(self.ct_key, said)
        log = hashlib.sha256(spki(self.ct_key)).digest()
        one = b"\0" + log + time + b"\0\0" + b"\4\3" + _sized(signature)
        found = _sized(_sized(one))
        return b"\x04" + _der_length(len(found)) + found

    def _log(self, private: ec.EllipticCurvePrivateKey, url: str) -> dict[str, Any]:
        return {
            "baseUrl": url,
            "hashAlgorithm": "SHA2_256",
            "publicKey": {
                "rawBytes": b64(spki(private)),
                "keyDetails": _P256,
                "validFor": {"start": self._yesterday},
            },
            "logId": {"keyId": b64(hashlib.sha256(spki(private)).digest())},
        }

    def _chain(self, *certificates: x509.Certificate) -> dict[str, Any]:
        ders = [certificate.public_bytes(Encoding.DER) for certificate in certificates]
        return {
            "subject": {"organization": "tests", "commonName": "test"},
            "uri": "https://authority.example",
            "certChain": {"certificates": [{"rawBytes": b64(der)} for der in ders]},
            "validFor": {"start": self._yesterday},
        }

    @property
    def _yesterday(self) -> str:
        return (self.now - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _prepare_openssl(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / "tsa.pem").write_bytes(self.tsa.public_bytes(Encoding.PEM))
        (self.root / "tsa.key").write_bytes(
            self.tsa_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        (self.root / "serial").write_text("01\n")
        lines = [
            "[tsa]", "default_tsa = one", "[one]", "serial = serial", "signer_cert = tsa.pem",
            "signer_key = tsa.key", "signer_digest = sha256", "default_policy = 1.2.3.4.1",
            "digests = sha256", "ordering = yes", "ess_cert_id_alg = sha256",
        ]  # fmt: skip
        (self.root / "ts.cnf").write_text("\n".join(lines) + "\n")

    def _openssl(self, *arguments: str) -> None:
        command = [needs("openssl", "openssl"), *arguments]
        subprocess.run(command, cwd=self.root, check=True, capture_output=True)


def _hash(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def _der_length(length: int) -> bytes:
    return bytes([length]) if length < 128 else b"\x81" + bytes([length])


def _utf8(text: str) -> bytes:
    return b"\x0c" + _der_length(len(text)) + text.encode()
