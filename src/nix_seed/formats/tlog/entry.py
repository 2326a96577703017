"""``TransparencyLogEntry`` (sigstore_rekor.proto, as JSON): a leaf, and the proof that it is one.

The JSON a log returned goes into bundles verbatim; this reads it and makes our own log's. No member
may be unknown.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Final

from nix_seed.core import canonical_json
from nix_seed.core.declared import Codec, Declared, HexHash, SomeBytes, at, bytes_of, to_base64
from nix_seed.core.errors import InputError
from nix_seed.formats.tlog.merkle import HASH_SIZE
from nix_seed.formats.tlog.note import SignedCheckpoint

_INT64 = re.compile(r"0|[1-9][0-9]{0,18}")
_HASHES: Final = (0, 64)  # in a proof: a tree has no more than 2 ** 63 leaves


def _int64(found: Any, name: str, where: str) -> int:
    """Read an int64 as protobuf's JSON writes it: a decimal string."""
    if type(found) is not str:
        raise InputError(f"{where}: {name} must be a string")
    if not _INT64.fullmatch(found) or int(found) >= 1 << 63:
        raise InputError(f"{where}: {name} is {found[:40]!r}, which is no count")
    return int(found)


def _text(found: Any, name: str, where: str) -> bytes:
    if type(found) is not str:
        raise InputError(f"{where}: {name} must be a string")
    return found.encode()


Hash = Annotated[bytes, bytes_of(HASH_SIZE)]
_Int64 = Annotated[int, Codec(_int64, str)]
_Text = Annotated[bytes, Codec(_text, bytes.decode)]


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
