"""Audits a ledger again and again, and tells what is new: alarms, and when it cannot check.

Each round goes on from what the last clean one kept. The clock is given in, so that waiting can be
ended by a signal, and left out by a test.
"""

from collections.abc import Callable, Iterator

from nix_seed.audit.rules.report import AuditReport
from nix_seed.core.errors import InputError, NixSeedError, caught
from nix_seed.core.values import dataclass
from nix_seed.core.verdict import Fate, Severity
from nix_seed.release.rules.answer import AuditFinding, Kind


@dataclass(frozen=True, slots=True)
class Round:
    """One audit: its number, and what it found that no round before had.

    Where the audit itself failed there is no *report*, but why: the *failure*, an alarm if
    something false ended it. *blind* counts the rounds in a row, this one included, in which not
    everything could be checked.
    """

    number: int
    report: AuditReport | None
    new: tuple[AuditFinding, ...]
    failure: AuditFinding | None
    blind: int

    @property
    def fate(self) -> Fate:
        """The verdict of the report, or of the failure."""
        if self.report is not None:
            return self.report.fate
        false = self.failure is not None and self.failure.severity is Severity.ALARM
        return Fate.FALSE if false else Fate.UNCHECKED


@dataclass(frozen=True, slots=True)
class MonitorEnd:
    """Why it ended: 0 it was asked to, 1 an alarm, 3 it could not check for too long."""

    exit_code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Endurance:
    """When a monitor ends: after an alarm unless *keep_going*, and after one round if *once*.

    After *patience* rounds in a row that could not check everything it always ends.
    """

    keep_going: bool = False
    patience: int = 3
    once: bool = False


def monitor(
    run: Callable[[], AuditReport],
    wait: Callable[[], bool],
    on_round: Callable[[Round], None],
    on_alarm: Callable[[AuditFinding], None],
    until: Endurance,
) -> MonitorEnd:
    """Audit by *run* until there is an alarm, or *wait* returns false.

    *on_alarm* is called once for each alarm. *until* says what else ends it: where not everything
    can be checked, nobody is watching.
    Wrong input ends it at once (``InputError``), but only before any audit has come to its end.
    """
    watch = _Watch(run)
    while True:
        this = watch.round()
        on_round(this)
        alarms = [each for each in this.new if each.severity is Severity.ALARM]
        for alarm in alarms:
            on_alarm(alarm)
        if alarms and not until.keep_going:
            return MonitorEnd(1, alarms[0].reason)
        if this.blind >= until.patience:
            return MonitorEnd(3, f"not everything could be checked, {this.blind} times in a row")
        if until.once:
            return _once(this)
        if not wait():
            return MonitorEnd(0, "stopped")


def _once(this: Round) -> MonitorEnd:
    if this.report is not None:
        return MonitorEnd(this.fate.exit_code, this.report.reason)
    assert this.failure is not None
    return MonitorEnd(this.fate.exit_code, this.failure.reason)


class _Watch:
    """What earlier rounds told of is not told again, until it has gone and come back."""

    def __init__(self, run: Callable[[], AuditReport]) -> None:
        self._run = run
        self._told: set[str] = set()
        self._number = 0
        self._blind = 0
        self._worked = False

    def round(self) -> Round:
        self._number += 1
        try:
            report = self._run()
        except InputError as error:
            # Once it has worked, the command line is right: a file is being changed meanwhile.
            if not self._worked:
                raise
            return self._failed(error)
        except Exception as error:  # of a library's own, too: whoever can crash it would blind it
            return self._failed(caught(error, "the audit"))
        self._worked = True
        unchecked = bool(report.of(Severity.UNCHECKED))
        self._blind = self._blind + 1 if unchecked else 0
        new = tuple(self._new(report))
        return Round(self._number, report, new, None, self._blind)

    def _failed(self, error: NixSeedError) -> Round:
        self._blind += 1
        finding = AuditFinding(Kind.UNREAD, Severity.of(error), "the audit", error.message)
        new = () if finding.id in self._told else (finding,)
        self._told.add(finding.id)
        return Round(self._number, None, new, finding, self._blind)

    def _new(self, report: AuditReport) -> Iterator[AuditFinding]:
        for finding in report.findings:
            if finding.id not in self._told:
                yield finding
        self._told = {finding.id for finding in report.findings}
