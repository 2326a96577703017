"""The page of an audit: the verdict, what was found, the timeline of releases, what was read."""

from collections.abc import Sequence
from datetime import datetime

from nix_seed.audit.rules.record import LedgerRecord
from nix_seed.audit.rules.report import AuditReport, LogStatus
from nix_seed.core.verdict import Severity
from nix_seed.core.words import plural
from nix_seed.release.rules.finding import AuditFinding
from nix_seed.report.page.parts import (
    Child,
    Columns,
    PageSection,
    Row,
    ShownCheck,
    SortedCell,
    State,
    badge,
    check_list,
    data_table,
    digest,
    facts,
    fold,
    lines,
    macro,
    note,
    number,
    page,
)

_STATES = {
    Severity.ALARM: State.FALSE,
    Severity.UNCHECKED: State.UNCHECKED,
    Severity.WARNING: State.STATED,
    Severity.NOTICE: State.STATED,
}
_VERDICTS = {0: State.VERIFIED, 1: State.FALSE, 3: State.UNCHECKED}


def audit_page(found: AuditReport, now: datetime) -> str:
    """Return the page of the audit *found*, which was made at *now*."""
    sections = [
        _findings(found.findings),
        _timeline(found),
        _logs(found.logs),
        _copies(found),
    ]
    footer = (
        f"Made by nix-seed audit at {now:%Y-%m-%d %H:%M} UTC. This page fetches nothing; it states "
        "what was found then."
    )
    return page(f"Audit of {found.repository}", _banner(found, now), sections, footer)


def _banner(found: AuditReport, now: datetime) -> Child:
    new = len(found.records) - found.before
    return [
        macro(
            "title",
            "Nix Seed audit",
            fold(found.repository),
            "The ledger of its releases, and the logs it rests on",
        ),
        badge(_VERDICTS[found.exit_code], fold(found.words)),
        facts(
            [
                ("Audited", f"{now:%Y-%m-%d %H:%M} UTC"),
                ("Records", f"{len(found.records)}, {new} of them evaluated now"),
                ("Policy", digest(found.policies[0])),
                ("Policy's epoch", str(found.epoch)),
                ("Logs", ", ".join(each.id for each in found.logs)),
                ("Copies", ", ".join(each.name for each in found.copies) or "none could be read"),
            ]
        ),
    ]


def _findings(findings: Sequence[AuditFinding]) -> PageSection:
    counts = [
        plural(number, word)
        for severity, word in (
            (Severity.ALARM, "alarm"),
            (Severity.UNCHECKED, "check that could not be made"),
            (Severity.WARNING, "warning"),
            (Severity.NOTICE, "notice"),
        )
        if (number := sum(1 for each in findings if each.severity is severity))
    ]
    lead = ", ".join(counts) or "Nothing was found that is not as it must be."
    body = check_list(map(_check, findings)) if findings else None
    return PageSection("findings", "What was found", lead, body)


def _check(finding: AuditFinding) -> ShownCheck:
    evidence = [digest(line) for text in finding.evidence for line in text.split("\n")]
    name = f"{finding.severity.value}: {finding.kind.value}"
    words = [fold(finding.words), macro("line", ["Known again by ", digest(finding.id)], "hint")]
    return ShownCheck(name, _STATES[finding.severity], words, lines(evidence) if evidence else None)


def _timeline(found: AuditReport) -> PageSection:
    columns: Columns = [
        "Commit",
        number("No."),
        "Root",
        "Promoted by",
        "Builders",
        "In logs",
        "Record",
    ]
    numbered = list(enumerate(found.records, 1))
    rows = [_row(number, record) for number, record in reversed(numbered)]
    lead = f"{plural(len(found.records), 'record')}, the newest first."
    table = data_table("timeline-table", "Every record of the ledger", columns, rows, filters=True)
    none = note(State.STATED, "The ledger holds no record.")
    return PageSection("timeline", "Releases", lead, table if rows else none)


def _row(number: int, record: LedgerRecord) -> Row:
    where = [f"{at.log}, entry {at.index}" for at in record.positions]
    signed: Child = ", ".join(record.promoters)
    if not record.stands:
        signed = [", ".join(record.signers), macro("line", fold(record.why), "status-withheld")]
    return [
        digest(record.commit),
        SortedCell(str(number), number),
        digest(record.root),
        signed,
        ", ".join(record.builders) or "not evaluated",
        lines(where),
        digest(record.digest),
    ]


def _logs(logs: Sequence[LogStatus]) -> PageSection:
    columns: Columns = ["Log", "Kind", number("Entries"), "What was done"]
    rows: list[Row] = []
    for log in logs:
        done = log.words
        if log.read is not None:
            since = f" after entry {log.since - 1}" if log.since else ""
            done = f"{log.read} read{since}: {log.words}"
        rows.append([log.id, log.kind, SortedCell(str(log.size), log.size), fold(done)])
    lead = "A release counts only if logs hold it; so these are read as well, entry by entry."
    return PageSection(
        "logs", "Logs", lead, data_table("log-table", "The policy's logs", columns, rows)
    )


def _copies(found: AuditReport) -> PageSection:
    columns: Columns = ["Copy", number("Records read"), number("Lists read")]
    rows: list[Row] = [
        [fold(e.name), SortedCell(str(e.records), e.records), SortedCell(str(e.lists), e.lists)]
        for e in found.copies
    ]
    lead = "Where the ledger was read. Registries are not trusted: what they hide, the logs show."
    table = data_table("copy-table", "Copies of the ledger", columns, rows)
    none = note(State.UNCHECKED, "No copy of the ledger could be read.")
    return PageSection("copies", "Copies", lead, table if rows else none)
