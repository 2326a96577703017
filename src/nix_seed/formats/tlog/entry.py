"""Members of Rekor's JSON, read strictly: no member unknown, types exact, one spelling a value.

``TransparencyLogEntry`` (sigstore_rekor.proto, as JSON): a leaf, and the proof that it is one.

The JSON a log returned goes into bundles verbatim; this reads it and makes our own log's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from nix_seed.core import canonical_json
from nix_seed.core.errors import InputError
from nix_seed.formats.tlog.merkle import HASH_SIZE, Proof
from nix_seed.formats.tlog.note import SignedCheckpoint, decode_base64, encode_base64

_INT64 = re.compile(r"0|[1-9][0-9]{0,18}")
_NAMES: dict[type, str] = {str: "a string", dict: "an object", list: "an array", int: "an integer"}


class Members:
    """The members of one object; *where* names it in errors, *known* lists what it may hold."""

    def __init__(self, value: Any, where: str, *known: str) -> None:
        if not isinstance(value, dict):
            raise InputError(f"{where}: an object is wanted, not {type(value).__name__}")
        for name in value:
            if name not in known:
                raise InputError(f"{where}: there is no member {str(name)[:80]!r}")
        self._value: Mapping[str, Any] = value
        self._where = where

    def has(self, name: str) -> bool:
        """Whether the member is there and not null."""
        return self._value.get(name) is not None

    def required(self, name: str, kind: type) -> Any:
        """Return a member of exactly the type *kind*."""
        found = self._value.get(name)
        if type(found) is not kind:
            raise InputError(f"{self._where}: {name} must be {_NAMES[kind]}")
        return found

    def text(self, name: str, *allowed: str) -> str:
        """Return a string, one of *allowed* if any are named."""
        found: str = self.required(name, str)
        if allowed and found not in allowed:
            known = " or ".join(allowed)
            raise InputError(f"{self._where}: {name} is {found[:80]!r}; it must be {known}")
        return found

    def base64(self, name: str, size: int | None = None) -> bytes:
        """Return the bytes of a base64 string, *size* of them if that is given."""
        try:
            raw = decode_base64(self.required(name, str))
        except ValueError as error:
            raise InputError(f"{self._where}: {name}: {error}") from error
        if not raw or (size is not None and len(raw) != size):
            raise InputError(f"{self._where}: {name} has {len(raw)} bytes, not {size or 'any'}")
        return raw

    def hex(self, name: str) -> bytes:
        """Return the 32 bytes of a SHA-256 in lower-case hex."""
        found: str = self.required(name, str)
        if not re.fullmatch(r"[0-9a-f]{64}", found):
            raise InputError(f"{self._where}: {name} is not a SHA-256 in hex")
        return bytes.fromhex(found)

    def int64(self, name: str) -> int:
        """Return an int64 as protobuf's JSON writes it: a decimal string, absent for 0."""
        if not self.has(name):
            return 0
        found: str = self.required(name, str)
        if not _INT64.fullmatch(found) or int(found) >= 1 << 63:
            raise InputError(f"{self._where}: {name} is {found[:40]!r}, which is no count")
        return int(found)

    def inside(self, name: str, *known: str) -> Members:
        """Return the members of the object *name*."""
        return Members(self.required(name, dict), f"{self._where}, {name}", *known)


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
