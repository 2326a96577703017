"""Clients of Rekor v1, of Rekor v2, and of the embedded log behind ``nix-seed log serve``.

The last two have one API. Writing is ``POST /api/v2/log/entries``. Reading is tlog-tiles below
``/api/v2``, or from anywhere else where the tiles are served apart from the server. Rekor v1 has
``dsse`` 0.0.1 entries, an index by hash, and proofs by API. A log that is down is waited for, one
that refuses is quoted.
"""

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, Self

from nix_seed.core import canonical_json
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.core.values import dataclass
from nix_seed.formats.intoto.statement import Envelope
from nix_seed.formats.tlog import entry as tlog_entry
from nix_seed.formats.tlog.merkle import WIDTH, Proof, check_inclusion, leaf_hash
from nix_seed.formats.tlog.note import SignedCheckpoint
from nix_seed.logs.log import Entry, OneLog, TileReader, TileSource
from nix_seed.logs.rules.entry import TrustedLog, logged_signature
from nix_seed.registry.errors import Patience, Unreachable, asked_to_wait, retryable
from nix_seed.registry.http import Transport
from nix_seed.registry.rules.http import parse_url

LARGEST_ANSWER = 1 << 25  # a bundle of 256 entries has at most 16 MiB
_WORDS = 300


@dataclass(frozen=True, slots=True)
class RekorReply:
    """An answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def wanted(self, doing: str, *statuses: int) -> Self:
        """Return the answer if it has one of *statuses* (200), and raise what it says if not."""
        if self.status in (statuses or (200,)):
            return self
        text = f"{doing}: the log answered {self.status}{_said(self.body)}"
        if self.status == 400:
            raise InputError(text, hint="the log does not take such entries")
        raise CouldNotCheck(text, hint="is this the address of a transparency log of this kind?")

    def parse(self, doing: str) -> Mapping[str, Any]:
        """Return the JSON object of an answer; what is none is no answer of a log."""
        try:
            value = canonical_json.loads(self.body, label="the answer")
        except InputError as error:
            raise CouldNotCheck(f"{doing}: {error.message}") from error
        if not isinstance(value, dict):
            raise CouldNotCheck(f"{doing}: the answer is not a JSON object")
        return value


class LogHttp:
    """Speaks to the log at *url*, over HTTPS, or plain HTTP on loopback only. Thread-safe.

    Every request may be repeated: logs refuse what they already hold, and say where it is.
    """

    def __init__(self, url: str, *, patience: Patience | None = None) -> None:
        try:
            known = "?" not in parse_url(url).target
        except CouldNotCheck:
            known = False
        if not known:
            raise InputError(f"{url!r} is not the address of a log: https://HOST[/PATH] is")
        self.url = url.rstrip("/")
        # Rekor v2 answers a new entry when it is in the tree: 20 s at least (its documentation).
        self._patience = patience or Patience(stall=60.0, settle=60.0)
        self._transport = Transport(self._patience, os.environ)

    def get(self, path: str, doing: str) -> RekorReply:
        """GET *path* below the log's address; any status below 500 is an answer."""
        return self._patience.retry(lambda: self._send("GET", path, None, doing))

    def post(self, path: str, body: bytes, doing: str) -> RekorReply:
        """POST JSON to *path* below the log's address."""
        return self._patience.retry(lambda: self._send("POST", path, body, doing))

    def _send(self, method: str, path: str, body: bytes | None, doing: str) -> RekorReply:
        headers = {"Accept": "application/json, */*"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        answer = self._transport.send(method, f"{self.url}/{path}", headers, body)
        if retryable(answer.status) or answer.status >= 500:
            words = _said(answer.read_error())
            raise Unreachable(
                f"{doing}: the log answered {answer.status}{words}",
                hint="this is the log's trouble; try again later",
                retry_after=asked_to_wait(answer.headers),
            )
        found = answer.read(LARGEST_ANSWER)
        if found is None:
            raise CouldNotCheck(f"{doing}: the answer is longer than {LARGEST_ANSWER} bytes")
        return RekorReply(answer.status, answer.headers, found)


class HttpSource:
    """A tile log's files behind an address, or *below* it."""

    def __init__(self, http: LogHttp, below: str = "") -> None:
        self._http, self._below = http, below

    def read(self, path: str) -> bytes | None:
        """Return the file's bytes, None for 404."""
        doing = f"reading {path} of the log at {self}"
        reply = self._http.get(self._below + path, doing)
        return None if reply.status == 404 else reply.wanted(doing).body

    def __str__(self) -> str:
        return f"{self._http.url}/{self._below}".rstrip("/")


def _said(body: bytes) -> str:
    """Return the message of an error's JSON, ready to be put after its number."""
    try:
        text = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return ": " + "".join(c if c.isprintable() else " " for c in text)[:_WORDS]


_UUID = re.compile(r"(?:[0-9a-f]{16})?[0-9a-f]{64}")
_MOST_FOUND = 1000
_TRIES = 20  # to see a duplicate in the tree: it may have come in a moment ago
_PAUSE = 1.0


class RekorV1(OneLog):
    """The log *trusted* at *url*; satisfies ``Log``."""

    def __init__(self, trusted: TrustedLog, url: str, *, http: LogHttp | None = None) -> None:
        super().__init__(trusted)
        self._http = http or LogHttp(url)

    def check_writable(self, _: tlog_entry.KeyDetails | None = None, /) -> None:
        """See that a server answers; every kind of key is taken."""
        self._http.get("api/v1/log", f"asking the log {self.trusted.id}")

    def append(self, envelope: Envelope, verifier: tlog_entry.Verifier) -> Entry:
        """Log the envelope; return its entry in a bundle's spelling, proof and promise verified."""
        logged = logged_signature(envelope, verifier)
        doing = f"logging to {self.trusted.id} at {self._http.url}"
        request = tlog_entry.request_v1(envelope.dump(), [verifier])
        reply = self._http.post("api/v1/log/entries", request, doing)
        if reply.status == 409:
            return self._existing(reply, logged, doing)
        return self.checked(self._one(reply.wanted(doing, 200, 201), doing).to_json(), logged)

    def _existing(self, reply: RekorReply, logged: tlog_entry.LoggedSignature, doing: str) -> Entry:
        """Return the entry that a 409 speaks of, once it is there and proved to be ours.

        Where it is, the answer says in a header that proxies lose; the index knows it, too. Either
        may be seconds behind.
        """
        uuid = reply.headers.get("Location", "").rstrip("/").rpartition("/")[2]
        for number in range(_TRIES):
            time.sleep(_PAUSE if number else 0)
            if _UUID.fullmatch(uuid) is None:
                for entry in self.lookup(logged.payload_digest):
                    if self.verify(entry, logged).proved:
                        return entry
                continue
            found = self._http.get(f"api/v1/log/entries/{uuid}", doing)
            if found.status != 404:
                # A 409 is no success by itself: the entry must record this very signature.
                return self.checked(self._one(found.wanted(doing), doing).to_json(), logged)
        raise CouldNotCheck(
            f"{doing}: the log has it already (409), and does not show it",
            hint="try again later; if it stays so, do not trust this log",
        )

    def lookup(self, digest: bytes) -> Iterator[Entry]:
        """Yield the proven entries that the index has for a SHA-256: of the payload or a subject.

        The index itself is not proven: what it leaves out, nobody can tell from its answer.
        """
        doing = f"asking {self.trusted.id} for entries of sha256:{digest.hex()}"
        query = canonical_json.dumps({"hash": f"sha256:{digest.hex()}"})
        reply = self._http.post("api/v1/index/retrieve", query, doing).wanted(doing)
        uuids = canonical_json.loads(reply.body, label="the answer")
        if not isinstance(uuids, list) or len(uuids) > _MOST_FOUND:
            raise CouldNotCheck(f"{doing}: the answer is not a list of up to {_MOST_FOUND} entries")
        for uuid in uuids:
            if not isinstance(uuid, str) or not _UUID.fullmatch(uuid):
                raise CouldNotCheck(f"{doing}: {str(uuid)[:80]!r} names no entry")
        for uuid in dict.fromkeys(uuids):
            found = self._http.get(f"api/v1/log/entries/{uuid}", doing)
            if found.status == 404:
                continue  # The index may be ahead of the tree, and proves nothing in any case.
            entry = self._one(found.wanted(doing), doing)
            if not uuid.endswith(leaf_hash(entry.body).hex()):
                raise CheckedFalse(f"{doing}: the log answered with another entry than {uuid}")
            self._check(entry)
            yield entry.to_json()

    def checkpoint(self) -> SignedCheckpoint:
        """Return the newest checkpoint of the active tree."""
        doing = f"asking {self.trusted.id} for its checkpoint"
        reply = self._http.get("api/v1/log?stable=false", doing).wanted(doing)
        value = reply.parse(doing).get("signedTreeHead")
        if not isinstance(value, str):
            raise CouldNotCheck(f"{doing}: the answer has no signedTreeHead")
        return self._signed(value.encode(), f"the checkpoint of {self.trusted.id}")

    def consistency(self, old: int, new: int) -> Proof:
        """Return the consistency proof between two sizes of the active tree."""
        if not 0 < old < new:
            return ()
        doing = f"asking {self.trusted.id} for a consistency proof"
        reply = self._http.get(f"api/v1/log/proof?firstSize={old}&lastSize={new}", doing)
        hashes = reply.wanted(doing).parse(doing).get("hashes")
        try:
            return tuple(bytes.fromhex(value) for value in hashes or ())
        except (TypeError, ValueError) as error:
            raise CouldNotCheck(f"{doing}: the answer has no hashes") from error

    def _one(self, reply: RekorReply, doing: str) -> tlog_entry.LogEntry:
        """Read an answer that holds one entry, under its UUID."""
        value = reply.parse(doing)
        if len(value) != 1:
            raise CouldNotCheck(f"{doing}: the answer holds {len(value)} entries, not one")
        try:
            return tlog_entry.entry_from_v1(next(iter(value.values())), "the answer")
        except InputError as error:
            raise CouldNotCheck(f"{doing}: {error.message}") from error

    def _check(self, entry: tlog_entry.LogEntry) -> None:
        """Raise ``CheckedFalse`` unless the log proves the entry, of whatever signature it is."""
        proof = entry.proof
        if proof is None or entry.promise is None:
            raise CheckedFalse(f"the log {self.trusted.id} gave an entry without a proof")
        signed = self._signed(proof.checkpoint, "the entry's checkpoint")
        check_inclusion(proof.hashes, proof.index, leaf_hash(entry.body), signed.head)
        if not self.trusted.key.verifies(entry.promise, tlog_entry.promised_bytes(entry)):
            raise CheckedFalse(f"the log {self.trusted.id} did not sign an entry's timestamp")

    def _signed(self, data: bytes, label: str) -> SignedCheckpoint:
        signed = SignedCheckpoint.parse(data, label)
        if not self.trusted.issued(signed.checkpoint.origin):
            raise CheckedFalse(
                f"{label} is of {signed.checkpoint.origin}, not of {self.trusted.origin}"
            )
        self.trusted.key.check(signed.note)
        return signed


_INDEX = re.compile(r"[0-9]{1,19}")
_INDEX_IN_WORDS = re.compile(r"\bindex:? ([0-9]{1,19})\b")
_NEWEST = 16 * WIDTH  # entries


class RekorV2(TileReader):
    """The log *trusted* at *url*; satisfies ``Log``. *tiles* reads its files from elsewhere."""

    def __init__(
        self,
        trusted: TrustedLog,
        url: str,
        *,
        tiles: TileSource | None = None,
        http: LogHttp | None = None,
    ) -> None:
        self._http = http or LogHttp(url)
        super().__init__(trusted, tiles or HttpSource(self._http, "api/v2/"))

    def check_writable(self, key: tlog_entry.KeyDetails | None = None, /) -> None:
        """Refuse a *key* that the log does not take, and see that a server answers."""
        if key not in (None, tlog_entry.ECDSA_P256):
            raise self._wrong_kind()
        self._http.get("api/v2/checkpoint", f"asking the log {self.trusted.id}")

    def _wrong_kind(self) -> InputError:
        return InputError(
            f"the log {self.trusted.id} takes signatures by ECDSA on P-256 only",
            hint="only a hash travels to the log, and Ed25519 cannot be verified by it; "
            "sign with the default kind of key, or log to Rekor v1",
        )

    def append(self, envelope: Envelope, verifier: tlog_entry.Verifier) -> Entry:
        """Log the envelope's signature; return the entry verbatim, its proof verified."""
        if verifier.key_details != tlog_entry.ECDSA_P256:
            raise self._wrong_kind()
        logged = logged_signature(envelope, verifier)
        body = tlog_entry.HashedRekord.of(logged)
        doing = f"logging to {self.trusted.id} at {self._http.url}"
        reply = self._http.post("api/v2/log/entries", tlog_entry.request_v2(body), doing)
        if reply.status == 409:
            return self.checked(self._duplicate(reply, body, doing), logged)
        return self.checked(reply.wanted(doing, 200, 201).parse(doing), logged)

    def _duplicate(self, reply: RekorReply, body: tlog_entry.HashedRekord, doing: str) -> Entry:
        """Return the entry that a 409 points at, if it is ours to the byte.

        Where it is, a header says, which proxies lose, and the words; else it is looked for.
        """
        told = _INDEX.fullmatch(reply.headers.get("X-Log-Index", ""))
        told = told or _INDEX_IN_WORDS.search(_said(reply.body))
        if told is None:
            return self._newest(body.dump(), doing)
        index = int(told[told.lastindex or 0])
        signed = self._checkpoint_over(index, doing)
        entry = self.entry(index, signed)
        if entry.body != body.dump():
            raise CheckedFalse(
                f"{doing}: the log says that entry {index} is the one sent, but it is another",
                hint="nothing was logged; do not trust this log",
            )
        return entry.to_json()

    def _newest(self, body: bytes, doing: str) -> Entry:
        """Look for *body* among the newest entries, which a lost answer left behind."""
        start = None
        for number in range(_TRIES):
            time.sleep(_PAUSE if number else 0)
            signed = self.checkpoint()
            size = signed.head.size
            first = max(0, size - _NEWEST) if start is None else start
            for index, found in enumerate(self.bodies(first, size), first):
                if found == body:
                    return self.entry(index, signed).to_json()
            start = size
        raise CouldNotCheck(
            f"{doing}: the log has it already (409), does not say where, and it is not among the "
            f"newest {_NEWEST}",
            hint="try again later; if it stays so, log to another log",
        )

    def _checkpoint_over(self, index: int, doing: str) -> SignedCheckpoint:
        for _ in range(_TRIES):
            signed = self.checkpoint()
            if index < signed.head.size:
                return signed
            time.sleep(_PAUSE)
        raise CouldNotCheck(
            f"{doing}: the log says it is entry {index} already, but holds {signed.head.size}",
            hint="try again later; if it stays so, do not trust this log",
        )
