"""``nix-seed audit``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nix_seed.cli.audit.options import audit_options, question_of, state_of
from nix_seed.cli.command import seed_command
from nix_seed.cli.lines import columns, folded
from nix_seed.cli.options import json_option, stores_of
from nix_seed.cli.say import error_lines, say, say_verdict
from nix_seed.core.errors import NixSeedError

if TYPE_CHECKING:
    from nix_seed.audit.rules.report import AuditReport


@seed_command("audit")
@audit_options
@click.option("--no-state", is_flag=True, help="Neither go on from the last audit nor keep this.")
@click.option("--offline", is_flag=True, help="Ask nothing that is behind an address.")
@click.option(
    "--page",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the report as a page for people, too.",
)
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Replay the ledger of releases from its first entry, and every log it rests on.

    Reported are: two roots for one commit; records that are missing, passed over or gone; entries
    in a promoter's name that nobody shows; quorums that are not met by the evidence; who was
    trusted then and is no more; copies and logs that say different things; tags moved by hand.

    What a clean audit verified is kept, and the next one goes on from there.

    Exit 0: nothing is wrong. 1: an alarm: checked, and false. 3: not everything could be checked.
    """
    from nix_seed.audit.audit import audit
    from nix_seed.cli.audit.report import audit_json, audit_lines
    from nix_seed.cli.progress import progress

    now = datetime.now(UTC)
    if options["no_state"] and options["state"] is not None:
        raise click.UsageError("--state and --no-state exclude each other")
    state = None if options["no_state"] else state_of(options)
    question = question_of(options, ask=not options["offline"])
    with progress(quiet=as_json) as show:
        found = audit(stores_of(options), question, state, now, show)
    if as_json:
        say(audit_json(found))
    else:
        say_verdict("\n".join(folded(audit_lines(found), columns())))
    if options["page"] is not None:
        _write_page(options["page"], found, now)
    click.get_current_context().exit(found.exit_code)


def _write_page(path: Path, found: AuditReport, now: datetime) -> None:
    from nix_seed.core.files import write_output
    from nix_seed.report.page.audit import audit_page

    try:
        write_output(path, audit_page(found, now).encode())
    except NixSeedError as error:
        if not found.alarms:
            raise
        # An alarm is what the exit code must say, whatever becomes of the page.
        say("\n".join(error_lines(error)), err=True)
