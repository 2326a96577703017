"""What an audit says: typed findings, the logs and copies it read, and one verdict.

*Checked and false* is an alarm; what could not be checked is neither that nor nothing. Warnings and
notices are for people: nothing that anyone relies on is false.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Final

from nix_seed.audit.rules.record import LedgerRecord
from nix_seed.core.digests import Digest
from nix_seed.core.verdict import Severity
from nix_seed.release.rules.finding import AuditFinding, Kind


@dataclass(frozen=True, slots=True)
class LogStatus:
    """A log: of *size* entries now, those from *since* on were *read* now.

    *since* is 0 where all of it was; *read* is None for a log that cannot be read, and *reason*
    says what was done instead.
    """

    id: str
    kind: str
    size: int
    since: int
    read: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class CopyStatus:
    """A copy of the ledger: how many records lie in it, and how many of its lists were read."""

    name: str
    records: int
    lists: int


_EXIT_CODES: Final = {Severity.ALARM: 1, Severity.UNCHECKED: 3}


@dataclass(frozen=True, slots=True)
class AuditReport:
    """All that an audit found. *records* are in the order of the ledger.

    The first *before* of them were audited by an earlier run, from whose checkpoint this one went
    on. *policies* are the digests of the policies that were known. *accepted* of the findings are
    notices only because someone accepted them.
    """

    repository: str
    policies: tuple[Digest, ...]
    epoch: int
    records: tuple[LedgerRecord, ...]
    before: int
    copies: tuple[CopyStatus, ...]
    logs: tuple[LogStatus, ...]
    findings: tuple[AuditFinding, ...]
    accepted: int = 0

    def of(self, *severities: Severity) -> tuple[AuditFinding, ...]:
        """Return the findings of these severities."""
        return tuple(each for each in self.findings if each.severity in severities)

    @property
    def alarms(self) -> tuple[AuditFinding, ...]:
        """What was checked, and is false."""
        return self.of(Severity.ALARM)

    @property
    def clean(self) -> bool:
        """Whether everything was checked and nothing is false, by nobody's leave."""
        return self.exit_code == 0 and self.accepted == 0

    @property
    def exit_code(self) -> int:
        """0 clean, 1 an alarm, 3 not everything could be checked."""
        codes = [_EXIT_CODES[e.severity] for e in self.findings if e.severity in _EXIT_CODES]
        return min(codes, default=0)

    @property
    def reason(self) -> str:
        """The answer in one line."""
        number = len(self.records)
        releases = f"{number} record{'' if number == 1 else 's'}"
        if self.exit_code == 0:
            warnings = len(self.of(Severity.WARNING))
            also = f"; warnings: {warnings}" if warnings else ""
            return f"{releases}, and nothing is false{also}"
        found = self.of(Severity.ALARM if self.exit_code == 1 else Severity.UNCHECKED)
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        return f"{releases}: {found[0].reason}{more}"


def sort_findings(findings: Iterable[AuditFinding]) -> tuple[AuditFinding, ...]:
    """Return *findings*, each once: the worst first, of these by kind, else as they came."""
    severities, kinds = list(Severity), list(Kind)
    once = dict.fromkeys(findings)
    return tuple(sorted(once, key=lambda e: (severities.index(e.severity), kinds.index(e.kind))))


def accept(
    findings: Iterable[AuditFinding], known: Collection[str]
) -> tuple[tuple[AuditFinding, ...], int]:
    """Return *findings*; those whose id someone has looked into and accepted are notices.

    And how many of these would have made the exit code another one.
    """
    taken, heavy = [], 0
    for each in findings:
        if each.id in known:
            heavy += each.severity in _EXIT_CODES
            taken.append(replace(each, severity=Severity.NOTICE, reason=f"accepted: {each.reason}"))
        else:
            taken.append(each)
    return tuple(taken), heavy
