"""``nix-seed audit``: its options, which ``monitor`` shares, and its answer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from nix_seed.cli import options as shared
from nix_seed.cli.command import FILE, exit_with, option, progress, seed_command, together
from nix_seed.cli.lazily import lazily
from nix_seed.cli.say import answer, error_lines, say
from nix_seed.core.errors import NixSeedError
from nix_seed.core.files import write_output
from nix_seed.core.words import members, plural
from nix_seed.formats.oci.reference import parse_reference

with lazily():
    from nix_seed.audit import audit
    from nix_seed.audit.rules import report as reports
    from nix_seed.release import load
    from nix_seed.release.rules import answer as answers
    from nix_seed.report.page import audit as pages


audit_options = together(
    shared.registry_options,
    option(
        "--from REF",
        "Where the ledger is: host/name or oci:DIR; repeated, copies to be compared "
        "[the image of seed.lock].",
        into="copies",
        multiple=True,
    ),
    shared.policy_option("The policy in force."),
    shared.policy_history_option,
    option(
        "--also REF",
        "Another repository that the same promoters release to the same logs.",
        multiple=True,
    ),
    option(
        "--log ID=PLACE",
        "Read this log of the policy elsewhere: an address, or the directory of a copy.",
        into="logs",
        multiple=True,
    ),
    option(
        "--since COMMIT|RECORD",
        "Take the releases up to this one as they are: only later ones are evaluated anew.",
    ),
    option("--whole", "Begin anew, whatever was audited before."),
    option(
        "--accept ID",
        "A finding that was looked into: a notice in this run; may be repeated.",
        multiple=True,
    ),
    option(
        "--most-entries N",
        "Entries of one log to read at most [1000000].",
        type=click.IntRange(min=1),
    ),
    shared.state_option("Where what was audited is kept [~/.local/state/nix-seed]."),
)
"""Add what says which ledger is meant, by which policies, and from where on."""


def question_of(options: dict[str, Any], *, ask: bool) -> audit.AuditQuestion:
    """Return the question that *options*, as ``audit_options`` names them, ask."""
    return audit.AuditQuestion(
        copies=tuple(
            parse_reference(each)
            for each in options["copies"] or (shared.locked_image("no ledger is named"),)
        ),
        policy=load.load_policy_of_then(options["policy_file"]),
        earlier=tuple(load.load_policy_of_then(each) for each in options["earlier"]),
        also=tuple(parse_reference(each) for each in options["also"]),
        places=dict(
            shared.named_value("--log", each, "log=https://HOST") for each in options["logs"]
        ),
        ask=ask,
        since=options["since"],
        whole=options["whole"],
        most=options["most_entries"] or audit.MOST_ENTRIES,
        accepted=frozenset(options["accept"]),
    )


_MOST_RECORDS = 20


def audit_lines(found: reports.AuditReport) -> Iterator[str]:
    """Yield the verdict, what happened and what to do about it, and what was read."""
    incidents = reports.incidents_of(found.findings, found.records)
    yield f"verdict: {found.fate.value.upper()}: {reports.verdict_sentence(found, incidents)}"
    for incident in incidents:
        yield ""
        yield from incident_lines(incident)
    yield ""
    yield f"ledger of {found.repository}, policy epoch {found.epoch}"
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
    for copy in found.copies:
        read = f"{plural(copy.records, 'record')} read in {plural(copy.lists, 'list')}"
        yield f"  copy    {copy.name}: {read}"
    for log in found.logs:
        yield f"  log     {_log_words(log)}"


def incident_lines(incident: reports.Incident) -> Iterator[str]:
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


def _log_words(log: reports.LogStatus) -> str:
    if log.read is None:
        return f"{log.id} ({log.kind}): {log.reason}"
    since = f" after entry {log.since - 1}" if log.since else ""
    entries = plural(log.size, "entry", "entries")
    return f"{log.id} ({log.kind}): {entries}, {log.read} read{since}: {log.reason}"


def audit_json(found: reports.AuditReport) -> dict[str, Any]:
    """Return the same as one object."""
    names = ("repository", "policies", "epoch", "exit_code", "before")
    return members(found, *names, words="reason", verdict="fate") | {
        "records": [each.to_json() | members(each, "copies") for each in found.records],
        "copies": [members(each, "name", "records", listsRead="lists") for each in found.copies],
        "logs": [
            members(each, "id", "kind", "size", "since", "read", words="reason")
            for each in found.logs
        ],
        "findings": [finding_json(each) for each in found.findings],
    }


def finding_json(finding: answers.AuditFinding) -> dict[str, Any]:
    """Return one finding as an object."""
    return members(finding, "id", "kind", "severity", "subject", "evidence", words="reason")


@seed_command("audit")
@audit_options
@option("--no-state", "Neither go on from the last audit nor keep this.")
@option("--offline", "Ask nothing that is behind an address.")
@option("--page FILE", "Write the report as a page for people, too.", type=FILE)
@shared.json_option
def command(**options: Any) -> None:
    """Replay the ledger of releases from its first entry, and every log it rests on.

    Reported are: two roots for one commit; records that are missing, passed over or gone; entries
    in a promoter's name that nobody shows; quorums that are not met by the evidence; who was
    trusted then and is no more; copies and logs that say different things; tags moved by hand.

    What a clean audit verified is kept, and the next one goes on from there.

    Exit 0: nothing is wrong. 1: an alarm: checked, and false. 3: not everything could be checked.
    """
    now = datetime.now(UTC)
    state = shared.state_of(options)
    question = question_of(options, ask=not options["offline"])
    with progress():
        found = audit.audit(shared.stores_of(options), question, state, now)
    answer(audit_json(found), audit_lines(found), verdict=True)
    if options["page"] is not None:
        _write_page(options["page"], found, now)
    exit_with(found.exit_code)


def _write_page(path: Path, found: reports.AuditReport, now: datetime) -> None:
    try:
        write_output(path, pages.audit_page(found, now).encode())
    except NixSeedError as error:
        if not found.alarms:
            raise
        # An alarm is what the exit code must say, whatever becomes of the page.
        say("\n".join(error_lines(error)), err=True)
