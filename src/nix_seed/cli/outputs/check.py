"""``nix-seed outputs check``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nix_seed.cli import options as shared
from nix_seed.cli.command import FILE, option, progress, seed_command
from nix_seed.cli.say import answer, columns, table
from nix_seed.core.words import members
from nix_seed.formats.oci.reference import parse_reference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nix_seed.outputs.rules.findings import OutputFinding, OutputsReport


_MOST_SHOWN = 60  # lines


@seed_command("check", short_help="Show which outputs independent builders reproduced.")
@click.argument("commit")
@option(
    "--from REF",
    "Where outputs are kept: host/name or oci:DIR; may be repeated [image of seed.lock].",
    into="places",
    multiple=True,
)
@shared.policy_option("Whom to believe.")
@option("--system SYSTEM", "Only what was built for this system.")
@option("--page FILE", "Write the report as a page for people, too.", type=FILE)
@option("--badge FILE", "Write how many outputs are reproducible as an SVG image.", type=FILE)
@shared.state_option("Where what logs showed before is kept [~/.local/state/nix-seed].")
@shared.registry_options
@shared.json_option
def check_command(**options: Any) -> None:
    """Show which outputs of COMMIT independent builders reproduced, and which differ.

    A difference is named where it begins, with its derivation and files, and not at what follows
    from it. Where diffoscope is installed, it shows what differs in them.

    Exit 1: something differs, or nobody said anything. 3: not everything could be read.
    """
    from nix_seed.outputs.check import check_outputs
    from nix_seed.release.load import load_policy, verifiers_of

    now = datetime.now(UTC)
    loaded = load_policy(options["policy_file"], now)
    commit = shared.commit_named(options["commit"])
    places = options["places"] or (
        shared.locked_image("the repository that keeps the outputs is not named"),
    )
    references = [parse_reference(each) for each in places]
    with progress():
        state = shared.state_of(options)
        by = verifiers_of(loaded, shared.stores_of(options), state, ledgers=False)
        found = check_outputs(by, references, commit, options["system"])
    answer(report_json(found), report_lines(found), verdict=True)
    _write(found, now, options["page"], options["badge"])
    click.get_current_context().exit(found.fate.exit_code)


def _write(found: OutputsReport, now: datetime, to: Path | None, image: Path | None) -> None:
    from nix_seed.core.files import write_output
    from nix_seed.report.page.outputs import outputs_badge, outputs_page

    if to is not None:
        write_output(to, outputs_page(found, now).encode())
    if image is not None:
        write_output(image, outputs_badge(found).encode())


def report_json(found: OutputsReport) -> dict[str, Any]:
    """Return the report as one object."""
    about = ("system", "path", "names", "deriver", "state", "begins", "follows")
    fields = (*about, "unread", "diffoscope")
    return members(found, "commit", "reason", "silent", "unchecked", verdict="fate") | {
        "outputs": [
            members(each, *fields)
            | {
                "answers": [members(a, "nar_hash", "builders", "seeds") for a in each.answers],
                "files": [members(file, "file", "how") for file in each.files],
            }
            for each in found.outputs
        ],
        "setAside": [members(each, "signer", "reason") for each in found.set_aside],
    }


def report_lines(found: OutputsReport) -> Iterator[str]:
    """Yield the verdict, every output in a table, and where differences begin."""
    yield f"verdict: {found.fate.value.upper()}: {found.reason}"
    systems = {each.system for each in found.outputs}
    rows = [
        (_name(each, systems), each.state.value, " | ".join(map(_who, each.answers)))
        for each in found.outputs
    ]
    if rows:
        yield ""
        yield from table(("OUTPUT", "STATE", "BUILDERS"), rows, width=columns())
    for each in found.outputs:
        if each.begins:
            yield ""
            yield from _beginning(each, systems)
    following = [_name(each, systems) for each in found.outputs if each.follows]
    if following:
        yield ""
        yield f"follows from that: {', '.join(following)}"
    for system, names in found.silent.items():
        if names:
            yield f"not heard for {system}: {', '.join(names)}"
    for aside in found.set_aside:
        yield f"set aside: {aside.reason}"
    for reason in found.unchecked:
        yield f"could not check: {reason}"


def _beginning(found: OutputFinding, systems: set[str]) -> Iterator[str]:
    yield f"the difference begins in {_name(found, systems)}"
    yield f"  derivation  {found.deriver or 'not stated'}"
    for each in found.answers:
        yield f"  {each.nar_hash}  {_who(each)}"
    if len({each.seeds for each in found.answers}) > 1:
        yield "  they were built in different seeds"
    for file in found.files:
        yield f"  {file.file}: {file.how}"
    if found.unread:
        yield f"  {found.unread}"
    shown = found.diffoscope.splitlines()
    for line in shown[:_MOST_SHOWN]:
        yield f"    {line}".rstrip()
    if len(shown) > _MOST_SHOWN:
        yield f"    … {len(shown) - _MOST_SHOWN} more lines of diffoscope: --page FILE shows them"


def _name(found: OutputFinding, systems: set[str]) -> str:
    return found.label if len(systems) < 2 else f"{found.label} ({found.system})"


def _who(said: Any) -> str:
    return ", ".join(said.builders)
