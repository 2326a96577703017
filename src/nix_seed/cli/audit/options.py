"""Options of ``audit`` and ``monitor``, and the question they ask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nix_seed.cli.options import (
    locked_image,
    policy_history_option,
    policy_option,
    registry_options,
    state_directory,
    state_option,
    with_options,
)

if TYPE_CHECKING:
    from nix_seed.audit.audit import AuditQuestion

Command = TypeVar("Command", bound=Callable[..., Any])


def audit_options(command: Command) -> Command:
    """Add what says which ledger is meant, by which policies, and from where on."""
    return registry_options(with_options(command, _AUDIT))


_AUDIT: list[Callable[[Any], Any]] = [
    click.option(
        "--from",
        "copies",
        multiple=True,
        metavar="REF",
        help="Where the ledger is: host/name or oci:DIR; repeated, copies to be compared "
        "[the image of seed.lock].",
    ),
    policy_option("The policy in force."),
    policy_history_option,
    click.option(
        "--also",
        multiple=True,
        metavar="REF",
        help="Another repository that the same promoters release to the same logs.",
    ),
    click.option(
        "--log",
        "logs",
        multiple=True,
        metavar="ID=PLACE",
        help="Read this log of the policy elsewhere: an address, or the directory of a copy.",
    ),
    click.option(
        "--since",
        metavar="COMMIT|RECORD",
        help="Take the releases up to this one as they are: only later ones are evaluated anew.",
    ),
    click.option("--whole", is_flag=True, help="Begin anew, whatever was audited before."),
    click.option(
        "--accept",
        multiple=True,
        metavar="ID",
        help="A finding that was looked into: a notice in this run; may be repeated.",
    ),
    click.option(
        "--most-entries",
        type=click.IntRange(min=1),
        metavar="N",
        help="Entries of one log to read at most [1000000].",
    ),
    state_option("Where what was audited is kept [~/.local/state/nix-seed]."),
]


def question_of(options: dict[str, Any], *, ask: bool) -> AuditQuestion:
    """Return the question that *options*, as ``audit_options`` names them, ask."""
    from nix_seed.audit.audit import MOST_ENTRIES, AuditQuestion
    from nix_seed.formats.oci.reference import parse_reference
    from nix_seed.release.load import load_policy_of_then

    return AuditQuestion(
        copies=tuple(
            parse_reference(each)
            for each in options["copies"] or (locked_image("where is the ledger?"),)
        ),
        policy=load_policy_of_then(options["policy_file"]),
        earlier=tuple(load_policy_of_then(each) for each in options["earlier"]),
        also=tuple(parse_reference(each) for each in options["also"]),
        places=dict(_place(each) for each in options["logs"]),
        ask=ask,
        since=options["since"],
        whole=options["whole"],
        most=options["most_entries"] or MOST_ENTRIES,
        accepted=frozenset(options["accept"]),
    )


def state_of(options: dict[str, Any]) -> Path:
    """Return the directory of what was audited, which ``verify`` uses as well."""
    given: Path | None = options["state"]
    return given or state_directory()


def _place(text: str) -> tuple[str, str]:
    name, equals, place = text.partition("=")
    if not equals or not name or not place:
        raise click.UsageError(f"--log {text}: ID=PLACE is wanted, as in log=https://HOST")
    return name, place
