"""The answer of ``audit`` for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nix_seed.core.members import members
from nix_seed.core.words import plural

if TYPE_CHECKING:
    from nix_seed.audit.rules.report import AuditReport, LogStatus
    from nix_seed.release.rules.finding import AuditFinding

_MOST_RECORDS = 20


def audit_lines(found: AuditReport) -> Iterator[str]:
    """Yield the records, the logs and copies that were read, the findings, the verdict."""
    yield f"ledger of {found.repository}, policy epoch {found.epoch}"
    yield from _record_lines(found)
    for copy in found.copies:
        read = f"{plural(copy.records, 'record')} read in {plural(copy.lists, 'list')}"
        yield f"  copy    {copy.name}: {read}"
    for log in found.logs:
        yield f"  log     {_log_words(log)}"
    yield ""
    for finding in found.findings:
        yield from finding_lines(finding)
    if found.findings:
        yield ""
    yield f"verdict: {verdict_words(found).upper()}: {found.words}"


def verdict_words(found: AuditReport) -> str:
    """Return the verdict in the words that all commands use."""
    return {0: "verified", 1: "checked and false"}.get(found.exit_code, "could not check")


def finding_lines(finding: AuditFinding) -> Iterator[str]:
    """Yield a finding with its id and what can be looked up for it."""
    yield f"{finding.severity.value.upper()} {finding.kind.value} [{finding.id}] {finding.words}"
    yield from (f"    {line}" for text in finding.evidence for line in text.splitlines())


def _record_lines(found: AuditReport) -> Iterator[str]:
    number = len(found.records)
    new = number - found.before
    since = f", {new} of them new since the last clean audit" if found.before else ""
    yield f"  records {number}{since}"
    for record in found.records[-_MOST_RECORDS:]:
        names = ", ".join(record.promoters) or "nobody whose word counts"
        state = "" if record.stands else "  does not stand"
        yield f"    {record.commit}  root {str(record.root)[:19]}…  {names}{state}"
    if number > _MOST_RECORDS:
        yield f"    and {number - _MOST_RECORDS} before these"


def _log_words(log: LogStatus) -> str:
    if log.read is None:
        return f"{log.id} ({log.kind}): {log.words}"
    since = f" after entry {log.since - 1}" if log.since else ""
    entries = plural(log.size, "entry", "entries")
    return f"{log.id} ({log.kind}): {entries}, {log.read} read{since}: {log.words}"


def audit_json(found: AuditReport) -> dict[str, Any]:
    """Return the same as one object."""
    return members(found, "repository", "policies", "epoch", "exit_code", "words", "before") | {
        "verdict": verdict_words(found),
        "records": [each.to_json() | members(each, "copies") for each in found.records],
        "copies": [members(each, "name", "records", listsRead="lists") for each in found.copies],
        "logs": [
            members(each, "id", "kind", "size", "since", "read", "words") for each in found.logs
        ],
        "findings": [finding_json(each) for each in found.findings],
    }


def finding_json(finding: AuditFinding) -> dict[str, Any]:
    """Return one finding as an object."""
    return members(finding, "id", "kind", "severity", "subject", "words", "evidence")
