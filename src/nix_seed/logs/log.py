"""What every transparency log can do, wherever it is (docs/formats-log.md); what each has shown.

The largest checkpoint seen of each log is remembered, so that a log cannot take back what it
showed: one file a log, ``<hash of origin and key>.checkpoint``. It is the signed note itself,
evidence against the log that anyone can verify. Safe for concurrent processes; it only ever moves
forward.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, Protocol

from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.core.files import explained, locked, read_if_there, write_atomically
from nix_seed.formats.intoto.statement import Envelope
from nix_seed.formats.tlog.entry import LoggedSignature, Verifier
from nix_seed.formats.tlog.merkle import Proof
from nix_seed.formats.tlog.note import SignedCheckpoint
from nix_seed.logs.rules.entry import (
    EntryFate,
    EntryResult,
    HistoryResult,
    LogTrust,
    TrustedLog,
    check_history,
    evaluate_entry,
)
from nix_seed.logs.rules.signer import PublicKey

Entry = Mapping[str, Any]
"""A ``TransparencyLogEntry`` as JSON, verbatim as the log gave it (Rekor v1's: as bundles do)."""


class Historian(Protocol):
    """What can be asked about a log's past: the part of ``Log`` that needs no entry."""

    def checkpoint(self) -> SignedCheckpoint:
        """Return the newest checkpoint, its signature verified."""
        ...

    def consistency(self, old: int, new: int) -> Proof:
        """Return the log's proof that its tree of *old* leaves begins that of *new*: unverified."""
        ...


class Log(Historian, Protocol):
    """A log. ``CouldNotCheck``: it is out of reach. ``CheckedFalse``: it answered, and lied."""

    trusted: TrustedLog
    """Its identity and key, by which every answer is verified before it is returned."""

    def check_writable(self, key: PublicKey | None = None, /) -> None:
        """Raise what ``append`` would, as far as that can be told before there is an entry.

        *key* is the one that will sign; None: one that is not known before.
        """
        ...

    def append(self, envelope: Envelope, verifier: Verifier) -> Entry:
        """Log the one signature of *envelope*, or find it logged; return its proven entry."""
        ...

    def verify(self, entry: Entry, logged: LoggedSignature) -> EntryResult:
        """Judge *entry* by this log's key alone; no network."""
        ...

    def lookup(self, digest: bytes) -> Iterator[Entry]:
        """Yield the proven entries of a SHA-256.

        Rekor v1 has an index: *digest* is of the envelope's payload, or of any subject in it. A
        log of tiles has none, and is read from its first entry on: *digest* is of the signed bytes.
        """
        ...


class OneLog:
    """A log, by which every answer is verified before it is returned: *trusted*."""

    def __init__(self, trusted: TrustedLog) -> None:
        self.trusted = trusted

    def verify(self, entry: Entry, logged: LoggedSignature) -> EntryResult:
        """Judge *entry* by this log's key alone; no network."""
        return evaluate_entry(entry, logged, LogTrust((self.trusted,)))

    def checked(self, entry: Entry, logged: LoggedSignature) -> Entry:
        """Return *entry*, the log's own answer, if it proves what was asked of it.

        Raises ``CheckedFalse`` if not, ``CouldNotCheck`` where it is no entry at all: whatever
        stands in for a log that is down says nothing false.
        """
        result = self.verify(entry, logged)
        if result.fate is EntryFate.MALFORMED:
            raise CouldNotCheck(
                f"the log {self.trusted.id} gave no entry: {result.reason}",
                hint="is this the address of a transparency log of this kind?",
            )
        if not result.proved:
            raise CheckedFalse(f"the log {self.trusted.id} answered falsely: {result.words}")
        return entry


class AbsentLog(OneLog):
    """The log *trusted*, out of reach for the reason *why*; satisfies ``Log``, as one down does."""

    def __init__(self, trusted: TrustedLog, why: CouldNotCheck) -> None:
        super().__init__(trusted)
        self._why = why

    def _fail(self, *_: object, **__: object) -> NoReturn:
        raise CouldNotCheck(self._why.message, hint=self._why.hint) from self._why

    append = check_writable = checkpoint = consistency = lookup = _fail


Consistency = Callable[[int, int], Proof]
"""Returns the log's consistency proof from a smaller size to a larger one (``Log.consistency``)."""


class CheckpointState:
    """The checkpoints kept in *directory*."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def seen(self, log: TrustedLog) -> SignedCheckpoint | None:
        """Return the largest checkpoint seen of *log*, None before the first."""
        path = self._path(log)
        data = read_if_there(path)
        if data is None:
            return None
        signed = SignedCheckpoint.parse(data, str(path))
        if not log.issued(signed.checkpoint.origin):
            raise InputError(f"{path} is of another log than {log.id}", hint=_HINT)
        log.key.check(signed.note)
        return signed

    def ask(
        self, log: TrustedLog, historian: Historian
    ) -> tuple[SignedCheckpoint, HistoryResult | None]:
        """Ask *historian* for the newest checkpoint, compare it with what was seen, remember it.

        It must not fall short of what was seen before it was asked. Another process may have seen
        more meanwhile, and that the log grew is no lie. Raises as ``advance`` does.
        """
        before = self.seen(log)
        signed = historian.checkpoint()
        back = before is not None and signed.head.size < before.head.size
        return signed, self.advance(log, signed, historian.consistency, newest=back)

    def advance(
        self,
        log: TrustedLog,
        signed: SignedCheckpoint,
        consistency: Consistency,
        *,
        newest: bool = True,
    ) -> HistoryResult | None:
        """Compare *signed*, whose signature was verified, with what was seen, and remember it.

        *consistency* is asked for a proof where one is needed. *newest*: the log gave it as its
        newest, so a smaller one is a rollback; not so for the checkpoint inside an entry.
        Returns None for the first checkpoint; raises ``CheckedFalse`` where the log rolled back,
        forked or shows a split view, and then remembers what it did before.
        """
        with self._alone():
            seen = self.seen(log)
            if seen is None:
                write_atomically(self._path(log), signed.dump())
                return None
            old, new = sorted((seen.head.size, signed.head.size))
            back = newest and signed.head.size < seen.head.size
            proof = consistency(old, new) if 0 < old < new and not back else ()
            result = check_history(log.id, seen.checkpoint, signed.checkpoint, proof, newest=newest)
            if signed.head.size > seen.head.size:
                write_atomically(self._path(log), signed.dump())
            return result

    def _path(self, log: TrustedLog) -> Path:
        # By key as well: another log that takes the same name has another history.
        name = hashlib.sha256(log.origin.encode() + b"\n" + log.key.der).hexdigest()
        return self._directory / f"{name}.checkpoint"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with explained("keeping the checkpoints seen"):
            self._directory.mkdir(parents=True, exist_ok=True)
            with locked(self._directory / "lock"):
                yield


_HINT = "remove it only if you know who changed it: it is what shows that a log rolled back"
