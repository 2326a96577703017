"""What every transparency log can do, wherever it is (docs/formats-log.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from nix_seed.formats.intoto.envelope import Envelope
from nix_seed.formats.tlog.body import LoggedSignature, Verifier
from nix_seed.formats.tlog.checkpoint import SignedCheckpoint
from nix_seed.formats.tlog.merkle import Proof
from nix_seed.ground.errors import CheckedFalse, CouldNotCheck
from nix_seed.rules.log_verify import (
    EntryResult,
    Fate,
    LogTrust,
    TrustedLog,
    check_entry,
    evaluate_entry,
)

__all__ = ["Entry", "Historian", "Log", "check_own", "evaluate_own"]

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

    @property
    def trusted(self) -> TrustedLog:
        """Its identity and key, by which every answer is verified before it is returned."""
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


def evaluate_own(trusted: TrustedLog, entry: Entry, logged: LoggedSignature) -> EntryResult:
    """Judge an entry by one log's key."""
    return evaluate_entry(entry, logged, LogTrust((trusted,)))


def check_own(trusted: TrustedLog, entry: Entry, logged: LoggedSignature) -> None:
    """Raise ``CheckedFalse`` unless the log's own answer proves what was asked of it.

    ``CouldNotCheck`` where the answer is no entry at all: whatever stands in for a log that is down
    says nothing false.
    """
    result = evaluate_own(trusted, entry, logged)
    if result.fate is Fate.MALFORMED:
        raise CouldNotCheck(
            f"the log {trusted.id} gave no entry: {result.reason}",
            hint="is this the address of a transparency log of this kind?",
        )
    try:
        check_entry(entry, logged, LogTrust((trusted,)))
    except CheckedFalse as error:
        raise CheckedFalse(f"the log {trusted.id} answered falsely: {error.message}") from error
