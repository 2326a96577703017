"""The attestations that cosign 2 writes: an image at the tag ``sha256-<hex>.att``.

Each layer is a DSSE envelope; what verifies it lies in the layer's annotations. Read only, and made
into a bundle, so that one way judges all.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

from nix_seed.formats.intoto.bundle import Bundle, Certificate, PublicKeyHint
from nix_seed.formats.intoto.envelope import Envelope
from nix_seed.formats.intoto.members import base64_member, member, object_of
from nix_seed.ground import canonical_json
from nix_seed.ground.digests import Digest
from nix_seed.ground.errors import InputError

__all__ = ["ENVELOPE_LAYER", "attestation_tag", "bundle_of_layer"]

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
        material=PublicKeyHint("") if not certificate else Certificate(_der(certificate, what)),
        tlog_entries=_entries(annotations.get(_ENTRY), what),
        timestamps=_timestamps(annotations.get(_TIMESTAMP), what),
    )


def _der(pem: str, what: str) -> bytes:
    lines = [line.strip() for line in pem.strip().splitlines()]
    if len(lines) < 3 or lines[0] != _BEGIN or lines[-1] != _END:
        raise InputError(f"{what}: {_CERTIFICATE} is not one certificate in PEM")
    try:
        return base64.b64decode("".join(lines[1:-1]), validate=True)
    except binascii.Error as error:
        raise InputError(f"{what}: {_CERTIFICATE} is not one certificate in PEM") from error


def _entries(text: str | None, what: str) -> tuple[Mapping[str, Any], ...]:
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


def _timestamps(text: str | None, what: str) -> tuple[bytes, ...]:
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
