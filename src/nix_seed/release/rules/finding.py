"""What reading a ledger can find: its kind, how bad it is, and the evidence."""

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from nix_seed.core.verdict import Severity


class Kind(StrEnum):
    """What a finding is about, what weighs most first."""

    CONFLICT = "conflict"
    EQUIVOCATION = "equivocation"
    CONTRADICTION = "contradiction"
    GAP = "gap"
    SKIPPED = "skipped"
    HEADS = "heads"
    VANISHED = "vanished"
    WITHHELD = "withheld"
    LOG = "log"
    LEDGER = "ledger"
    QUORUM = "quorum"
    REVOKED = "revoked"
    POLICY = "policy"
    PROMOTER = "promoter"
    PENDING = "pending"
    COPIES = "copies"
    TAG = "tag"
    UNREAD = "unread"


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """Something found: *subject* names what it is about, *evidence* is what anyone can look up."""

    kind: Kind
    severity: Severity
    subject: str
    reason: str
    evidence: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Twelve hex digits by which the same finding is known again.

        Of an alarm the words count as well: to accept one is to accept what it says, and no other
        lie about the same thing. What could not be checked differs with every network error.
        """
        parts = (self.kind.value, self.severity.value, self.subject, *self.evidence)
        if self.severity is Severity.ALARM:
            parts = (*parts, self.reason)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
