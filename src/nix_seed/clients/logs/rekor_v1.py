"""Rekor v1: ``dsse`` 0.0.1 entries, an index by hash, proofs by API."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from nix_seed.clients.logs.base import Entry, check_own, evaluate_own
from nix_seed.clients.logs.http import LogHttp, Reply, parse_answer, refusal
from nix_seed.formats.intoto.envelope import Envelope
from nix_seed.formats.tlog.body import LoggedSignature, Verifier, request_v1
from nix_seed.formats.tlog.checkpoint import SignedCheckpoint
from nix_seed.formats.tlog.entry import LogEntry, entry_from_v1, promised_bytes
from nix_seed.formats.tlog.merkle import Proof, check_inclusion, leaf_hash
from nix_seed.ground import canonical_json
from nix_seed.ground.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.rules.log_verify import EntryResult, TrustedLog
from nix_seed.rules.logged import logged_signature

__all__ = ["RekorV1"]

_UUID = re.compile(r"(?:[0-9a-f]{16})?[0-9a-f]{64}")
_MOST_FOUND = 1000


class RekorV1:
    """The log *trusted* at *url*; satisfies ``Log``."""

    def __init__(self, trusted: TrustedLog, url: str, *, http: LogHttp | None = None) -> None:
        self._trusted = trusted
        self._http = http or LogHttp(url)

    @property
    def trusted(self) -> TrustedLog:
        """The log's identity and key."""
        return self._trusted

    def append(self, envelope: Envelope, verifier: Verifier) -> Entry:
        """Log the envelope; return its entry in a bundle's spelling, proof and promise verified."""
        logged = logged_signature(envelope, verifier)
        doing = f"logging to {self._trusted.id} at {self._http.url}"
        request = request_v1(envelope.dump(), [verifier])
        reply = self._http.post("api/v1/log/entries", request, doing)
        if reply.status == 409:
            reply = self._existing(reply, doing)
        if reply.status not in {200, 201}:
            raise refusal(reply, doing)
        # A 409 is no success by itself: the entry it points at must record this very signature.
        entry = self._one(reply, doing).to_json()
        check_own(self._trusted, entry, logged)
        return entry

    def _existing(self, reply: Reply, doing: str) -> Reply:
        uuid = reply.headers.get("Location", "").rpartition("/")[2]
        if not _UUID.fullmatch(uuid):
            raise CouldNotCheck(f"{doing}: the log has it already, and does not say where (409)")
        return self._http.get(f"api/v1/log/entries/{uuid}", doing)

    def verify(self, entry: Entry, logged: LoggedSignature) -> EntryResult:
        """Judge *entry* by this log's key."""
        return evaluate_own(self._trusted, entry, logged)

    def lookup(self, digest: bytes) -> Iterator[Entry]:
        """Yield the proven entries that the index has for a SHA-256: of the payload or a subject.

        The index itself is not proven: what it leaves out, nobody can tell from its answer.
        """
        doing = f"asking {self._trusted.id} for entries of sha256:{digest.hex()}"
        query = canonical_json.dumps({"hash": f"sha256:{digest.hex()}"})
        reply = self._http.post("api/v1/index/retrieve", query, doing)
        if reply.status != 200:
            raise refusal(reply, doing)
        for uuid in dict.fromkeys(_uuids(reply, doing)):
            found = self._http.get(f"api/v1/log/entries/{uuid}", doing)
            if found.status != 200:
                raise refusal(found, doing)
            entry = self._one(found, doing)
            if not uuid.endswith(leaf_hash(entry.body).hex()):
                raise CheckedFalse(f"{doing}: the log answered with another entry than {uuid}")
            self._check(entry)
            yield entry.to_json()

    def checkpoint(self) -> SignedCheckpoint:
        """Return the newest checkpoint of the active tree."""
        doing = f"asking {self._trusted.id} for its checkpoint"
        reply = self._http.get("api/v1/log?stable=false", doing)
        if reply.status != 200:
            raise refusal(reply, doing)
        value = parse_answer(reply, doing).get("signedTreeHead")
        if not isinstance(value, str):
            raise CouldNotCheck(f"{doing}: the answer has no signedTreeHead")
        return self._signed(value.encode(), f"the checkpoint of {self._trusted.id}")

    def consistency(self, old: int, new: int) -> Proof:
        """Return the consistency proof between two sizes of the active tree."""
        if not 0 < old < new:
            return ()
        doing = f"asking {self._trusted.id} for a consistency proof"
        reply = self._http.get(f"api/v1/log/proof?firstSize={old}&lastSize={new}", doing)
        if reply.status != 200:
            raise refusal(reply, doing)
        hashes = parse_answer(reply, doing).get("hashes")
        try:
            return tuple(bytes.fromhex(value) for value in hashes or ())
        except (TypeError, ValueError) as error:
            raise CouldNotCheck(f"{doing}: the answer has no hashes") from error

    def _one(self, reply: Reply, doing: str) -> LogEntry:
        """Read an answer that holds one entry, under its UUID."""
        value: Mapping[str, Any] = parse_answer(reply, doing)
        if len(value) != 1:
            raise CouldNotCheck(f"{doing}: the answer holds {len(value)} entries, not one")
        try:
            return entry_from_v1(next(iter(value.values())), "the answer")
        except InputError as error:
            raise CouldNotCheck(f"{doing}: {error.message}") from error

    def _check(self, entry: LogEntry) -> None:
        """Raise ``CheckedFalse`` unless the log proves the entry, of whatever signature it is."""
        proof = entry.proof
        if proof is None or entry.promise is None:
            raise CheckedFalse(f"the log {self._trusted.id} gave an entry without a proof")
        signed = self._signed(proof.checkpoint, "the entry's checkpoint")
        check_inclusion(proof.hashes, proof.index, leaf_hash(entry.body), signed.head)
        if not self._trusted.key.verifies(entry.promise, promised_bytes(entry)):
            raise CheckedFalse(f"the log {self._trusted.id} did not sign an entry's timestamp")

    def _signed(self, data: bytes, what: str) -> SignedCheckpoint:
        signed = SignedCheckpoint.parse(data, what)
        if not self._trusted.issued(signed.checkpoint.origin):
            raise CheckedFalse(
                f"{what} is of {signed.checkpoint.origin}, not of {self._trusted.origin}"
            )
        self._trusted.key.check(signed.note)
        return signed


def _uuids(reply: Reply, doing: str) -> list[str]:
    value = canonical_json.loads(reply.body, what="the answer")
    if not isinstance(value, list) or len(value) > _MOST_FOUND:
        raise CouldNotCheck(f"{doing}: the answer is not a list of up to {_MOST_FOUND} entries")
    for uuid in value:
        if not isinstance(uuid, str) or not _UUID.fullmatch(uuid):
            raise CouldNotCheck(f"{doing}: {str(uuid)[:80]!r} names no entry")
    return value
