"""The answer of ``audit`` for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nix_seed.core.members import members
from nix_seed.core.words import plural

if TYPE_CHECKING:
    from nix_seed.audit.rules.incidents import Incident
    from nix_seed.audit.rules.report import AuditReport, LogStatus
    from nix_seed.release.rules.finding import AuditFinding

_MOST_RECORDS = 20


def audit_lines(found: AuditReport) -> Iterator[str]:
    """Yield the verdict, what happened and what to do about it, and what was read."""
    from nix_seed.audit.rules.incidents import incidents_of, verdict_sentence

    incidents = incidents_of(found.findings, found.records)
    yield f"verdict: {verdict_words(found).upper()}: {verdict_sentence(found, incidents)}"
    for incident in incidents:
        yield ""
        yield from incident_lines(incident)
    yield ""
    yield f"ledger of {found.repository}, policy epoch {found.epoch}"
    yield from _record_lines(found)
    for copy in found.copies:
        read = f"{plural(copy.records, 'record')} read in {plural(copy.lists, 'list')}"
        yield f"  copy    {copy.name}: {read}"
    for log in found.logs:
        yield f"  log     {_log_words(log)}"


def verdict_words(found: AuditReport) -> str:
    """Return the verdict in the words that all commands use."""
    return {0: "verified", 1: "checked and false"}.get(found.exit_code, "could not check")


def incident_lines(incident: Incident) -> Iterator[str]:
    """Yield what happened, what to do, where to read on, and the findings with their evidence.

    Each finding has the id that `--accept` takes; `--json` has its hashes whole.
    """
    yield f"{incident.severity.value.upper()}: {incident.happened}"
    if incident.section:
        yield f"  do       {incident.do}"
        yield f"  runbook  docs/runbook.md: {incident.section}"
    for shown in incident.findings:
        other = shown.finding.severity
        named = "" if other is incident.severity else f"{other.value}, "
        yield f"  {named}{shown.finding.kind.value} [{shown.finding.id}]  {shown.reason}"
        yield from (f"    {row}" for row in shown.rows)


def _record_lines(found: AuditReport) -> Iterator[str]:
    number = len(found.records)
    new = number - found.before
    since = f", {new} of them new since the last clean audit" if found.before else ""
    yield f"  records {number}{since}"
    for record in found.records[-_MOST_RECORDS:]:
        names = ", ".join(record.promoters) or "nobody whose word counts"
        state = "" if record.stands else "  does not stand"
        yield f"    {record.commit}  root {record.root.hex[:12]}  {names}{state}"
    if number > _MOST_RECORDS:
        yield f"    and {number - _MOST_RECORDS} before these"


def _log_words(log: LogStatus) -> str:
    if log.read is None:
        return f"{log.id} ({log.kind}): {log.reason}"
    since = f" after entry {log.since - 1}" if log.since else ""
    entries = plural(log.size, "entry", "entries")
    return f"{log.id} ({log.kind}): {entries}, {log.read} read{since}: {log.reason}"


def audit_json(found: AuditReport) -> dict[str, Any]:
    """Return the same as one object."""
    return members(
        found, "repository", "policies", "epoch", "exit_code", "before", words="reason"
    ) | {
        "verdict": verdict_words(found),
        "records": [each.to_json() | members(each, "copies") for each in found.records],
        "copies": [members(each, "name", "records", listsRead="lists") for each in found.copies],
        "logs": [
            members(each, "id", "kind", "size", "since", "read", words="reason")
            for each in found.logs
        ],
        "findings": [finding_json(each) for each in found.findings],
    }


def finding_json(finding: AuditFinding) -> dict[str, Any]:
    """Return one finding as an object."""
    return members(finding, "id", "kind", "severity", "subject", "evidence", words="reason")
