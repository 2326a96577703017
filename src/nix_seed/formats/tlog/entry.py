"""``TransparencyLogEntry`` (sigstore_rekor.proto, as JSON): a leaf, and the proof that it is one.

The JSON a log returned goes into bundles verbatim; this reads it and makes our own log's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from nix_seed.formats.tlog.checkpoint import SignedCheckpoint
from nix_seed.formats.tlog.members import Members
from nix_seed.formats.tlog.merkle import HASH_SIZE, Proof
from nix_seed.formats.tlog.note import encode_base64
from nix_seed.ground import canonical_json
from nix_seed.ground.errors import InputError

__all__ = ["InclusionProof", "LogEntry", "entry_from_v1", "promised_bytes"]

_MOST_HASHES = 64  # a tree has no more than 2 ** 63 leaves


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """*hashes* lead from leaf *index* to *root* of a tree of *size*, which *checkpoint* signs."""

    index: int
    root: bytes
    size: int
    hashes: Proof
    checkpoint: bytes

    @classmethod
    def _read(cls, found: Members, where: str) -> Self:
        hashes: list[Any] = found.required("hashes", list) if found.has("hashes") else []
        if len(hashes) > _MOST_HASHES:
            raise InputError(f"{where}: a proof has no more than {_MOST_HASHES} hashes")
        return cls(
            index=found.int64("logIndex"),
            root=found.base64("rootHash", HASH_SIZE),
            size=found.int64("treeSize"),
            hashes=tuple(
                Members({"hash": value}, where, "hash").base64("hash", HASH_SIZE)
                for value in hashes
            ),
            checkpoint=found.inside("checkpoint", "envelope").text("envelope").encode(),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the object as protobuf's JSON spells it."""
        return {
            "logIndex": str(self.index),
            "rootHash": encode_base64(self.root),
            "treeSize": str(self.size),
            "hashes": [encode_base64(value) for value in self.hashes],
            "checkpoint": {"envelope": self.checkpoint.decode()},
        }


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A log entry. *promise* is Rekor v1's signed entry timestamp, over *integrated_time* too.

    *log_id* is None where it is absent; *integrated_time* is in seconds since 1970, 0 for none.
    """

    index: int
    log_id: bytes | None
    kind: str
    version: str
    integrated_time: int
    promise: bytes | None
    proof: InclusionProof | None
    body: bytes

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str) -> Self:
        """Read an entry of a bundle or of a log's answer; *where* names it in errors."""
        known = ("logIndex", "logId", "kindVersion", "integratedTime", "inclusionPromise")
        found = Members(value, where, *known, "inclusionProof", "canonicalizedBody")
        kind = found.inside("kindVersion", "kind", "version")
        promise = None
        if found.has("inclusionPromise"):
            name = "signedEntryTimestamp"
            promise = found.inside("inclusionPromise", name).base64(name)
        log_id = found.inside("logId", "keyId").base64("keyId") if found.has("logId") else None
        return cls(
            index=found.int64("logIndex"),
            log_id=log_id,
            kind=kind.text("kind"),
            version=kind.text("version"),
            integrated_time=found.int64("integratedTime"),
            promise=promise,
            proof=_proof(found, where),
            body=found.base64("canonicalizedBody"),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the object as Rekor v2's server spells it, nulls and zeros included."""
        promise = None
        if self.promise is not None:
            promise = {"signedEntryTimestamp": encode_base64(self.promise)}
        return {
            "logIndex": str(self.index),
            "logId": None if self.log_id is None else {"keyId": encode_base64(self.log_id)},
            "kindVersion": {"kind": self.kind, "version": self.version},
            "integratedTime": str(self.integrated_time),
            "inclusionPromise": promise,
            "inclusionProof": None if self.proof is None else self.proof.to_json(),
            "canonicalizedBody": encode_base64(self.body),
        }


def _proof(found: Members, where: str) -> InclusionProof | None:
    if not found.has("inclusionProof"):
        return None
    known = ("logIndex", "rootHash", "treeSize", "hashes", "checkpoint")
    inner = found.inside("inclusionProof", *known)
    return InclusionProof._read(inner, f"{where}, inclusionProof")


def promised_bytes(entry: LogEntry) -> bytes:
    """Return what Rekor v1's signed entry timestamp is over."""
    value = {
        "body": encode_base64(entry.body),
        "integratedTime": entry.integrated_time,
        "logID": (entry.log_id or b"").hex(),
        "logIndex": entry.index,
    }
    return canonical_json.dumps(value)


def entry_from_v1(value: Mapping[str, Any], where: str) -> LogEntry:
    """Read one entry of Rekor v1's API (``LogEntry``, the object under the UUID)."""
    known = ("body", "integratedTime", "logID", "logIndex", "verification", "attestation")
    found = Members(value, where, *known)
    proved = found.inside("verification", "signedEntryTimestamp", "inclusionProof")
    inner = ("checkpoint", "hashes", "logIndex", "rootHash", "treeSize")
    proof = proved.inside("inclusionProof", *inner)
    body = found.base64("body")
    head = Members(canonical_json.loads(body, what=where), where, "apiVersion", "kind", "spec")
    checkpoint = proof.text("checkpoint").encode()
    SignedCheckpoint.parse(checkpoint, f"{where}, checkpoint")
    return LogEntry(
        index=_count(found, "logIndex", where),
        log_id=found.hex("logID"),
        kind=head.text("kind"),
        version=head.text("apiVersion"),
        integrated_time=_count(found, "integratedTime", where),
        promise=proved.base64("signedEntryTimestamp"),
        proof=InclusionProof(
            index=_count(proof, "logIndex", where),
            root=proof.hex("rootHash"),
            size=_count(proof, "treeSize", where),
            hashes=tuple(
                Members({"hash": each}, where, "hash").hex("hash")
                for each in proof.required("hashes", list)[:_MOST_HASHES]
            ),
            checkpoint=checkpoint,
        ),
        body=body,
    )


def _count(found: Members, name: str, where: str) -> int:
    number: int = found.required(name, int)
    if not 0 <= number < 1 << 63:
        raise InputError(f"{where}: {name} is {number}, which is no count")
    return number
