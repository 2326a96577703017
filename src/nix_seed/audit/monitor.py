"""Audits a ledger again and again, and tells what is new: alarms, and when it cannot check.

Each round goes on from what the last clean one kept. The clock is given in, so that waiting can be
ended by a signal, and left out by a test.
"""

from collections.abc import Callable

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
    What a round told of is not told again, until it has gone and come back.
    """
    told: set[str] = set()
    number = blind = 0
    worked = False
    while True:
        number += 1
        report, failure = _audited(run, worked=worked)
        worked = worked or report is not None
        found = report.findings if report is not None else tuple(filter(None, (failure,)))
        new = tuple(each for each in found if each.id not in told)
        told = {each.id for each in found} | (told if report is None else set())
        blind = 0 if report is not None and not report.of(Severity.UNCHECKED) else blind + 1
        this = Round(number, report, new, failure, blind)
        on_round(this)
        alarms = [each for each in new if each.severity is Severity.ALARM]
        for alarm in alarms:
            on_alarm(alarm)
        if alarms and not until.keep_going:
            return MonitorEnd(1, alarms[0].reason)
        if blind >= until.patience:
            return MonitorEnd(3, f"not everything could be checked, {blind} times in a row")
        if until.once:
            said = report or failure
            return MonitorEnd(this.fate.exit_code, said.reason if said else "")
        if not wait():
            return MonitorEnd(0, "stopped")


def _audited(
    run: Callable[[], AuditReport], *, worked: bool
) -> tuple[AuditReport | None, AuditFinding | None]:
    """Return the report of one audit, or why there is none.

    Once one has *worked*, the command line is right: what is wrong is a file that is being changed.
    """
    failed: NixSeedError
    try:
        return run(), None
    except InputError as error:
        if not worked:
            raise
        failed = error
    except Exception as error:  # of a library's own, too: whoever can crash it would blind it
        failed = caught(error, "the audit")
    return None, AuditFinding(Kind.UNREAD, Severity.of(failed), "the audit", failed.message)
