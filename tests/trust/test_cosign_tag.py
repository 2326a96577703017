"""The layers at cosign 2's tag, with all that may lie in their annotations."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError
from nix_seed.formats.intoto.bundle import (
    Bundle,
    Certificate,
    PublicKeyHint,
    attestation_tag,
    bundle_of_layer,
)
from nix_seed.formats.intoto.statement import build_statement
from nix_seed.trust.sign import KeySigner
from support.attestations import predicate, signed
from support.private_sigstore import PrivateSigstore, b64

BODY = {"apiVersion": "0.0.1", "kind": "dsse", "spec": {}}
ENTRY = {
    "SignedEntryTimestamp": b64(b"a promise"),
    "Payload": {
        "body": b64(json.dumps(BODY).encode()),
        "integratedTime": 1738324800,
        "logIndex": 42,
        "logID": "c0d2" * 16,
    },
}
TIMESTAMP = {"SignedRFC3161Timestamp": b64(b"a timestamp")}
ENVELOPE = Bundle.parse(signed(KeySigner.generate()), "it").envelope


def test_the_tag() -> None:
    assert attestation_tag(Digest("ab" * 32)) == f"sha256-{'ab' * 32}.att"


def test_a_keys_envelope() -> None:
    bundle = bundle_of_layer(ENVELOPE.dump(), {"predicateType": "x"}, "it")
    assert bundle == Bundle.of(ENVELOPE, PublicKeyHint(""))


def test_a_keyless_envelope(tmp_path: Path) -> None:
    made = PrivateSigstore(tmp_path / "sigstore").bundle(build_statement(predicate(), "x").dump())
    theirs = Bundle.parse(json.dumps(made).encode(), "it")
    assert isinstance(theirs.material, Certificate)
    pem = x509.load_der_x509_certificate(theirs.material.der).public_bytes(Encoding.PEM)
    annotations = {
        "dev.sigstore.cosign/certificate": pem.decode(),
        "dev.sigstore.cosign/bundle": json.dumps(ENTRY),
        "dev.sigstore.cosign/rfc3161timestamp": json.dumps(TIMESTAMP),
    }
    bundle = bundle_of_layer(theirs.envelope.dump(), annotations, "it")
    assert bundle.material == theirs.material
    assert bundle.envelope == theirs.envelope
    assert bundle.timestamps == (b"a timestamp",)
    assert bundle.tlog_entries == (
        {
            "logIndex": "42",
            "logId": {"keyId": b64(bytes.fromhex("c0d2" * 16))},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": "1738324800",
            "inclusionPromise": {"signedEntryTimestamp": b64(b"a promise")},
            "canonicalizedBody": ENTRY["Payload"]["body"],  # type: ignore[index]
        },
    )
    assert Bundle.parse(bundle.dump(), "it") == bundle


@pytest.mark.parametrize("empty", ["certificate", "bundle", "rfc3161timestamp"])
def test_an_empty_annotation_is_none(empty: str) -> None:
    annotations = {f"dev.sigstore.cosign/{empty}": ""}
    assert bundle_of_layer(ENVELOPE.dump(), annotations, "it") == Bundle.of(
        ENVELOPE, PublicKeyHint("")
    )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("certificate", "x", "it: dev.sigstore.cosign/certificate is not one certificate in PEM"),
        (
            "certificate",
            "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
            "it: dev.sigstore.cosign/certificate is not one certificate in PEM",
        ),
        (  # Python before 3.13 takes more padding than there is to fill.
            "certificate",
            "-----BEGIN CERTIFICATE-----\nAAAA=\n-----END CERTIFICATE-----\n",
            "it: dev.sigstore.cosign/certificate is not one certificate in PEM",
        ),
        ("bundle", "[]", "it, dev.sigstore.cosign/bundle: an object is wanted, not list"),
        (
            "bundle",
            json.dumps(ENTRY | {"Payload": {**ENTRY["Payload"], "logID": "x"}}),  # type: ignore[dict-item]
            "it, dev.sigstore.cosign/bundle, Payload: logID: 'x'"
            " is not a SHA-256 in lower-case hex",
        ),
        (
            "rfc3161timestamp",
            "{}",
            "it, dev.sigstore.cosign/rfc3161timestamp: SignedRFC3161Timestamp must be a string",
        ),
    ],
)
def test_annotations_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        bundle_of_layer(ENVELOPE.dump(), {f"dev.sigstore.cosign/{name}": value}, "it")
    assert caught.value.message == message
