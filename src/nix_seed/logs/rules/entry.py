"""Is a signature in a log that is trusted? Decided from the entry alone: no network, no clock.

``evaluate_entry`` answers with a frozen result for each entry, whatever is wrong with it. How many
logs are enough is the caller's to say; a log is counted by its ``id``, and two of one key are
refused when the trust is put together.

Whether a log has kept what it once showed is decided from two tree heads and the proof between
them. Three lies have three names: a log *rolls back* when its newest tree is smaller than one seen
before, it *forks* when two of its trees do not begin alike, and it *equivocates*, the plainest
fork, when two of one size have different roots (a split view).
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, Literal

from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.core.values import dataclass
from nix_seed.formats.intoto.statement import Envelope
from nix_seed.formats.tlog import entry as tlog_entry, merkle
from nix_seed.formats.tlog.note import Checkpoint, NoteKey, SignedCheckpoint


def logged_signature(
    envelope: Envelope, verifier: tlog_entry.Verifier
) -> tlog_entry.LoggedSignature:
    """Return what a log entry of *envelope* must record; the envelope has one signature."""
    if len(envelope.signatures) != 1:
        raise InputError(
            f"the envelope has {len(envelope.signatures)} signatures; a log entry is of one"
        )
    return tlog_entry.LoggedSignature(
        pae_digest=hashlib.sha256(envelope.pae).digest(),
        payload_digest=hashlib.sha256(envelope.payload).digest(),
        signature=envelope.signatures[0].sig,
        verifier=verifier,
    )


_TREE_ID = re.compile(r"[1-9][0-9]{0,19}")


class EntryFate(StrEnum):
    """What became of an entry."""

    PROVED = "proved"
    MALFORMED = "malformed"
    OTHER_SIGNATURE = "of another signature"
    NO_PROOF = "without a proof"
    UNKNOWN_LOG = "of no trusted log"
    WRONG_KEY = "not signed by the log"
    FALSE_PROOF = "not in the tree"
    FALSE_TIME = "with a forged timestamp"
    FORGED_WITNESS = "under a forged cosignature"
    TOO_FEW_WITNESSES = "under too few witnesses"


@dataclass(frozen=True, slots=True)
class TrustedLog:
    """A log: checkpoints of *origin* are signed by *key*.

    Rekor v1 names itself in its signatures and adds a tree's number to its origin, ``NAME -
    NUMBER``; *origin* is then either of them.
    """

    id: str
    kind: Literal["tiles", "rekor-v2", "rekor-v1"]
    origin: str
    key: NoteKey

    def issued(self, origin: str) -> bool:
        """Whether a checkpoint that says it is of *origin* is this log's."""
        if origin == self.origin:
            return True
        name, _, number = origin.rpartition(" - ")
        return self.kind == "rekor-v1" and name == self.origin and bool(_TREE_ID.fullmatch(number))


@dataclass(frozen=True, slots=True)
class TrustedWitness:
    """A witness, whose cosignatures *key* verifies."""

    id: str
    key: NoteKey


@dataclass(frozen=True, slots=True)
class LogTrust:
    """The logs and witnesses that count, and under how many witnesses a checkpoint must be."""

    logs: tuple[TrustedLog, ...]
    witnesses: tuple[TrustedWitness, ...] = ()
    witness_threshold: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.witness_threshold <= len(self.witnesses):
            raise InputError(
                f"{self.witness_threshold} of {len(self.witnesses)} witnesses can never be met"
            )
        members: list[TrustedLog | TrustedWitness] = [*self.logs, *self.witnesses]
        _refuse_twice("id", [member.id for member in members])
        # Distinct keys, not distinct names: one key under two names would be counted twice.
        _refuse_twice("key", [member.key.der.hex() for member in members])
        _refuse_twice("origin", [log.origin for log in self.logs])
        for witness in self.witnesses:
            if witness.key.kind != "cosignature":
                raise InputError(
                    f"the key of the witness {witness.id} is a log's",
                    hint="a witness's verifier key is of type 4: its base64 begins with B",
                )


@dataclass(frozen=True, slots=True)
class EntryResult:
    """The *fate* of one entry and its *reason*; only PROVED counts.

    *log* is the trusted log's id where one is known, *index* and *leaf* are where and what its tree
    holds. *checkpoint* is the proof's, signed by that log; *time* is what Rekor v1 promised, in
    seconds since 1970; *witnesses* gives, for each witness that cosigned, its latest time.
    """

    fate: EntryFate
    reason: str
    log: str | None = None
    index: int | None = None
    checkpoint: SignedCheckpoint | None = None
    time: int | None = None
    witnesses: tuple[tuple[str, int], ...] = ()
    leaf: bytes = b""

    @property
    def proved(self) -> bool:
        """Whether the entry is what it must be, in a trusted log."""
        return self.fate is EntryFate.PROVED

    @property
    def words(self) -> str:
        """The answer in one line."""
        where = f" of {self.log}" if self.log else ""
        return f"the log entry{where} is {self.fate.value}: {self.reason}"


class _Refused(Exception):
    def __init__(self, fate: EntryFate, reason: str, log: TrustedLog | None = None) -> None:
        super().__init__(reason)
        self.result = EntryResult(fate, reason, log.id if log else None)


def evaluate_entry(
    entry: Mapping[str, Any], logged: tlog_entry.LoggedSignature, trust: LogTrust
) -> EntryResult:
    """Judge one ``TransparencyLogEntry`` (JSON, as it stands in a bundle) of *logged*."""
    try:
        return _evaluate(tlog_entry.LogEntry.from_json(entry, "the log entry"), logged, trust)
    except _Refused as refused:
        return refused.result
    except InputError as error:
        return EntryResult(EntryFate.MALFORMED, error.message)


def evaluate_entries(
    entries: Sequence[Mapping[str, Any]], logged: tlog_entry.LoggedSignature, trust: LogTrust
) -> tuple[EntryResult, ...]:
    """Judge each of a bundle's entries."""
    return tuple(evaluate_entry(entry, logged, trust) for entry in entries)


def check_of_keys(entry: Mapping[str, Any], keys: Iterable[bytes]) -> None:
    """Raise ``CheckedFalse`` unless all of the entry is of the log of one of *keys*.

    *keys* are SubjectPublicKeyInfos of logs that no policy describes. Their origin is the name in
    the checkpoint; a promise tells Rekor v1. What is logged is not compared, and no witness counts.
    """
    found = tlog_entry.LogEntry.from_json(entry, "the log entry")
    proof = found.proof
    if proof is None:
        raise CheckedFalse("the log entry has no inclusion proof")
    signed = SignedCheckpoint.parse(proof.checkpoint, "the log entry's checkpoint")
    name = signed.checkpoint.origin.partition(" - ")[0]
    key = _key_of(found, keys, name)
    log = TrustedLog(name, "rekor-v2" if found.promise is None else "rekor-v1", name, key)
    try:
        _check_proof(found, proof, signed.head, log)
        if _promised_time(found, log) == 0:
            raise CheckedFalse("the log entry has a promise without the time it is of")
    except _Refused as refused:
        raise CheckedFalse(refused.result.words) from refused
    key.check(signed.note)


def _key_of(entry: tlog_entry.LogEntry, keys: Iterable[bytes], name: str) -> NoteKey:
    for der in keys:
        key = NoteKey.from_der(name, der)
        if entry.log_id in (key.log_id, hashlib.sha256(der).digest()):
            return key
    raise CheckedFalse("the log entry's logId is that of no trusted log")


def _evaluate(
    entry: tlog_entry.LogEntry, logged: tlog_entry.LoggedSignature, trust: LogTrust
) -> EntryResult:
    _check_body(entry, logged)
    proof = entry.proof
    if proof is None:
        raise _Refused(
            EntryFate.NO_PROOF, "there is no inclusion proof, and a promise proves nothing"
        )
    signed = SignedCheckpoint.parse(proof.checkpoint, "the checkpoint of the log entry")
    log = _find_log(signed, trust)
    _check_log_id(entry, log)
    leaf = _check_proof(entry, proof, signed.head, log)
    time = _promised_time(entry, log)
    found = []
    for witness in trust.witnesses:
        if signed.note.signatures_of(witness.key):
            with _refused_as(EntryFate.FORGED_WITNESS, log):
                found.append((witness.id, max(witness.key.check(signed.note))))
    witnesses = tuple(found)
    if len(witnesses) < trust.witness_threshold:
        have, want = len(witnesses), trust.witness_threshold
        reason = f"{have} of the trusted witnesses cosigned its checkpoint, and {want} must"
        raise _Refused(EntryFate.TOO_FEW_WITNESSES, reason, log)
    reason = f"leaf {proof.index} of {signed.checkpoint.origin}, size {signed.head.size}"
    return EntryResult(EntryFate.PROVED, reason, log.id, proof.index, signed, time, witnesses, leaf)


def _check_body(entry: tlog_entry.LogEntry, logged: tlog_entry.LoggedSignature) -> None:
    body = tlog_entry.parse_body(entry.body, "the body of the log entry")
    said = (entry.kind, entry.version)
    if body.kind != said:
        reason = f"its body is {' '.join(body.kind)}, and kindVersion says {' '.join(said)}"
        raise _Refused(EntryFate.MALFORMED, reason)
    differs = body.differs(logged)
    if differs is not None:
        raise _Refused(EntryFate.OTHER_SIGNATURE, differs)


def _find_log(signed: SignedCheckpoint, trust: LogTrust) -> TrustedLog:
    origin = signed.checkpoint.origin
    for log in trust.logs:
        if log.issued(origin):
            with _refused_as(EntryFate.WRONG_KEY, log):
                log.key.check(signed.note)
            return log
    raise _Refused(EntryFate.UNKNOWN_LOG, f"no trusted log has the origin {origin!r}")


def _check_log_id(entry: tlog_entry.LogEntry, log: TrustedLog) -> None:
    """Compare ``logId``, which nothing signs in Rekor v2, with the key that signed."""
    if entry.log_id is None and log.kind != "rekor-v1":
        return
    if entry.log_id != log.key.log_id:
        raise _Refused(EntryFate.WRONG_KEY, "logId names another log than the checkpoint's", log)


def _check_proof(
    entry: tlog_entry.LogEntry,
    proof: tlog_entry.InclusionProof,
    head: merkle.TreeHead,
    log: TrustedLog,
) -> bytes:
    if merkle.TreeHead(proof.size, proof.root) != head:
        reason = "its size and root are not those of its own checkpoint"
        raise _Refused(EntryFate.FALSE_PROOF, reason, log)
    # Rekor v1 counts over all its trees outside the proof, and inside one tree in it.
    if log.kind != "rekor-v1" and proof.index != entry.index:
        reason = f"it says it is leaf {entry.index}, and its proof says {proof.index}"
        raise _Refused(EntryFate.FALSE_PROOF, reason, log)
    leaf = merkle.leaf_hash(entry.body)
    with _refused_as(EntryFate.FALSE_PROOF, log):
        merkle.check_inclusion(proof.hashes, proof.index, leaf, head)
    return leaf


def _promised_time(entry: tlog_entry.LogEntry, log: TrustedLog) -> int | None:
    """Return the time that the log signed, if it signed one."""
    if log.kind != "rekor-v1":
        if entry.integrated_time or entry.promise is not None:
            reason = "a log of this kind signs no time, and the entry gives one"
            raise _Refused(EntryFate.FALSE_TIME, reason, log)
        return None
    if entry.promise is None:
        raise _Refused(EntryFate.FALSE_TIME, "it lacks Rekor v1's signed entry timestamp", log)
    if not log.key.verifies(entry.promise, tlog_entry.promised_bytes(entry)):
        reason = "the log did not sign its timestamp, index and body as they stand"
        raise _Refused(EntryFate.FALSE_TIME, reason, log)
    return entry.integrated_time


@contextmanager
def _refused_as(fate: EntryFate, log: TrustedLog) -> Iterator[None]:
    try:
        yield
    except CheckedFalse as error:
        raise _Refused(fate, error.message, log) from error


def _refuse_twice(label: str, values: Sequence[str]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise InputError(f"two logs or witnesses have the {label} {value}: they are one")


class History(StrEnum):
    """How a checkpoint stands to the largest seen before."""

    SAME = "same"
    GREW = "grew"
    OLDER = "older"


@dataclass(frozen=True, slots=True)
class HistoryResult:
    """The *history* of a log between two checkpoints, and the *reason* in words."""

    history: History
    reason: str


def check_history(
    log: str, seen: Checkpoint, now: Checkpoint, proof: merkle.Proof, *, newest: bool
) -> HistoryResult:
    """Judge the checkpoint *now* by *seen*; *proof* is the consistency proof between their sizes.

    *newest*: the log gave *now* as its newest, so it may not be smaller. Otherwise it came with an
    entry made long ago, and may; it must still be a beginning of *seen*. Both are of the log that
    is called *log*, and their signatures have been verified. ``CheckedFalse`` unless it only
    appended; the error's detail holds both checkpoints' texts.
    """
    older, newer = sorted((seen.head, now.head), key=lambda head: head.size)
    sizes = f"{seen.head.size} leaves were seen before, and now {now.head.size}"
    lie = None
    if newest and now.head.size < seen.head.size:
        # No proof is needed, and none may be had: who takes leaves back takes their tiles, too.
        lie = f"rolled back: {sizes}"
    elif older.size == newer.size and older.root != newer.root:
        roots = f"it signed two roots for size {now.head.size}: {seen.head}, and {now.head}"
        lie = f"shows a split view: {roots}"
    else:
        try:
            merkle.check_consistency(proof, older, newer)
        except CheckedFalse as error:
            lie = f"forked: {sizes}, but {error.message}"
    if lie is not None:
        raise CheckedFalse(
            f"the log {log} {lie}",
            hint="keep both checkpoints, and do not trust the log until its operator explains",
            detail=f"seen before:\n{seen}now:\n{now}",
        )
    if now.head.size < seen.head.size:
        return HistoryResult(History.OLDER, sizes)
    return HistoryResult(History.SAME if older.size == newer.size else History.GREW, sizes)
