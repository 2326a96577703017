"""What every transparency log can do, wherever it is (docs/formats-log.md).

A log that is not where it should be: whoever has others to write to goes on without it.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn, Protocol

from nix_seed.core.errors import CheckedFalse, CouldNotCheck
from nix_seed.formats.intoto.statement import Envelope
from nix_seed.formats.tlog.body import LoggedSignature, Verifier
from nix_seed.formats.tlog.merkle import Proof
from nix_seed.formats.tlog.note import SignedCheckpoint
from nix_seed.logs.rules.entry import EntryFate, EntryResult, LogTrust, TrustedLog, evaluate_entry
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
