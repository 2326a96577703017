"""The page of an audit: the verdict, what was found, the timeline of releases, what was read."""

from datetime import datetime
from functools import partial

from nix_seed.audit.rules.report import AuditReport, incidents_of, verdict_sentence
from nix_seed.core.verdict import Severity
from nix_seed.core.words import plural
from nix_seed.report.page.parts import PageSection, State, macro, page

_STATES = {
    Severity.ALARM: State.FALSE,
    Severity.UNCHECKED: State.UNCHECKED,
    Severity.WARNING: State.STATED,
    Severity.NOTICE: State.STATED,
}
_NAMES = {Severity.UNCHECKED: "check that could not be made"}
_part = partial(macro, of="audit.html.j2")


def audit_page(found: AuditReport, now: datetime) -> str:
    """Return the page of the audit *found*, which was made at *now*."""
    incidents = incidents_of(found.findings, found.records)
    severities = [each.severity for each in found.findings]
    counts = ", ".join(
        plural(severities.count(each), _NAMES.get(each, each.value))
        for each in Severity
        if each in severities
    )
    records = f"{plural(len(found.records), 'record')}, the newest first."
    logged = "A release counts only if logs hold it; so these are read as well, entry by entry."
    copied = "Where the ledger was read. Registries are not trusted: what they hide, the logs show."
    sections = [
        PageSection(
            "findings",
            "What was found",
            counts or "Nothing was found that is not as it must be.",
            _part("incidents", incidents, _STATES),
        ),
        PageSection("timeline", "Releases", records, _part("timeline", found.records)),
        PageSection("logs", "Logs", logged, _part("logs", found.logs)),
        PageSection("copies", "Copies", copied, _part("copies", found.copies)),
    ]
    at = f"{now:%Y-%m-%d %H:%M}"
    footer = (
        f"Made by nix-seed audit at {at} UTC. This page fetches nothing; it states what was found "
        "then."
    )
    sentence = verdict_sentence(found, incidents)
    banner = _part("banner", found, at, State(found.fate), sentence)
    return page(f"Audit of {found.repository}", banner, sections, footer)
