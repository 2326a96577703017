"""Certificates that anyone can make, and that readers fail on in many ways."""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

_ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_SAN = x509.ObjectIdentifier("2.5.29.17")
_ONE, _TWO = x509.ObjectIdentifier("1.2.3.4.5.6"), x509.ObjectIdentifier("1.2.3.4.5.7")
_NAME = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("https://x.example/a")])
_ISSUED = x509.UnrecognizedExtension(_ISSUER, b"\x0c\x01i")


def make_certificate(*extensions: x509.ExtensionType) -> bytes:
    """Return a certificate by its own key, with just these *extensions*."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "me")]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2036, 1, 1, tzinfo=UTC))
    )
    for each in extensions:
        builder = builder.add_extension(each, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def malformed_certificates() -> dict[str, bytes]:
    """Return each, by what is wrong with it."""
    twice = make_certificate(
        _NAME,
        _ISSUED,
        x509.UnrecognizedExtension(_ONE, b"\x05\x00"),
        x509.UnrecognizedExtension(_TWO, b"\x05\x00"),
    )
    good = make_certificate(_NAME, _ISSUED)
    return {
        "an X.400 address": make_certificate(
            x509.UnrecognizedExtension(_SAN, bytes.fromhex("3002a300")), _ISSUED
        ),
        "an extension twice": twice.replace(
            bytes.fromhex("06052a03040507"), bytes.fromhex("06052a03040506")
        ),
        "a truncated issuer": make_certificate(
            _NAME, x509.UnrecognizedExtension(_ISSUER, b"\x0c\x81")
        ),
        "a name that is no UTF-8": make_certificate(
            _NAME, x509.UnrecognizedExtension(_ISSUER, b"\x0c\x01\xff")
        ),
        "an X.509 version that there is not": good.replace(
            bytes.fromhex("a003020102"), bytes.fromhex("a003020109"), 1
        ),
        "its end missing": good[:-40],
        "no certificate": b"\x30\x03\x02\x01\x01",
    }
