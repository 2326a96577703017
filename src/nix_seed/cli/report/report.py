"""``nix-seed report``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nix_seed.cli import options as shared
from nix_seed.cli.command import FILE, argument, option, progress, seed_command
from nix_seed.cli.lazily import lazily
from nix_seed.cli.say import answer
from nix_seed.core.files import write_output
from nix_seed.core.processes import current_system
from nix_seed.formats.oci.reference import parse_reference

with lazily():
    from nix_seed.release import load, verify
    from nix_seed.release.rules import answer as answers
    from nix_seed.report import report as reports
    from nix_seed.report.page import document, trust


@seed_command("report")
@argument("reference", "IMAGE")
@option("-o, --output FILE", "Where the page is written.", required=True, type=FILE)
@option("--base REF", "A previous image: what changed since [seed.lock's].")
@shared.policy_option(
    "Verify by this policy, and show every check [trust.toml, if there].", default=None
)
@option("--commit HASH", "The commit it must be of [any the builders name].")
@option("--deep", "With --policy: read every layer as well.")
@shared.evidence_option
@option("--flake FLAKE", "What it was built from: judge its licences.")
@option("--attr NAME", "Of the flake: attribute made by mkSeed or mkRun.")
@option("--system SYSTEM", "Of an index, this system's [this machine's].")
@option("--no-roots", "Do not follow the image to its trust roots.")
@shared.store_option
@shared.registry_options
@shared.json_option
def command(**options: Any) -> None:
    """Write one self-contained page about IMAGE.

    What is in it, by size; what changed since --base; licences, by --flake or by the bill of
    materials attached to it; whom it can be trusted to be from (--policy); what it finally rests
    on, as this machine's store knows it. A part that was not asked for, or could not be checked,
    says so. The page is no check: exit 0 means that it was written; `nix-seed verify` answers with
    its exit code.
    """
    options["policy_file"] = shared.policy_used(options, Path())
    _check(options)
    with progress(quiet=False):
        report = _request(options).gather()
    text = document.report_page(report)
    write_output(options["output"], text.encode())
    size, found = len(text.encode()), trust.verdict(report.trust)[0].value
    told = found
    if isinstance(report.trust, reports.TrustAnswer):
        told += f" {answers.about(report.trust.verification, report.trust.policy.source)}"
    value = {"output": str(options["output"]), "size": size, "verdict": found}
    answer(value, f"{options['output']}  {size // 1000} kB  trust: {told}")


def _check(options: dict[str, Any]) -> None:
    """Refuse what would be asked and not answered."""
    for name, given in (("--deep", "deep"), ("--commit", "commit"), ("--evidence", "evidence")):
        if options[given] and options["policy_file"] is None:
            raise click.UsageError(f"{name} asks about trust: name a --policy")
    if options["attr"] is not None and options["flake"] is None:
        raise click.UsageError("--attr is of a flake: name the --flake")


def _request(options: dict[str, Any]) -> reports.ReportRequest:
    policy, base = options["policy_file"], options["base"]
    flake, attr = shared.flake_and_attr(options["flake"] or ".", options["attr"])
    return reports.ReportRequest(
        stores=shared.stores_of(options),
        nix=shared.nix_of(options),
        reference=parse_reference(options["reference"]),
        system=options["system"] or current_system(),
        base=None if base is None else parse_reference(base),
        named=options["flake"],
        flake=flake,
        attr=attr,
        policy=None if policy is None else load.load_policy(policy),
        query=verify.Query(
            options["commit"] and shared.commit_named(options["commit"]),
            deep=options["deep"],
            evidence=tuple(map(parse_reference, options["evidence"])),
        ),
        state=shared.state_directory(),
        walk=not options["no_roots"],
    )
