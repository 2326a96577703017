"""``nix-seed verify``."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nix_seed.cli.options import json_option, state_directory
from nix_seed.cli.registry_options import registry_options, stores_of

if TYPE_CHECKING:
    from nix_seed.flows.stores import AnyReference

__all__ = ["command"]


@click.command("verify", short_help="Check that independent builders agree on an image.")
@click.argument("reference", metavar="IMAGE")
@click.option(
    "--policy",
    "policy_file",
    default="trust.toml",
    show_default=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Whom to believe, and how many.",
)
@click.option("--commit", metavar="HASH", help="The commit it must be of [any the builders name].")
@click.option("--system", metavar="SYSTEM", help="Only this system's image of an index.")
@click.option("--deep", is_flag=True, help="Read every layer, and recompute every NAR hash.")
@click.option(
    "--offline",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Use what `nix-seed export` put there, and no network.",
)
@click.option(
    "--evidence",
    multiple=True,
    metavar="REF",
    help="Look for attestations in this repository as well; may be repeated.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where what logs showed before is kept [~/.local/state/nix-seed].",
)
@click.option("--no-state", is_flag=True, help="Neither compare with that nor keep any of it.")
@registry_options
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Check by the policy that IMAGE is what independent builders got from its commit.

    Exit 0: it is. 1: checked, and it is not (too few agree, or one says otherwise). 3: it could
    not be checked.
    """
    from nix_seed.cli.progress import progress
    from nix_seed.cli.verify_report import verification_json, verification_lines
    from nix_seed.flows.trust import judges_of, load_policy
    from nix_seed.flows.verify import Asked, verify_image
    from nix_seed.formats.intoto.predicate import Commit
    from nix_seed.formats.oci.reference import parse_reference

    now = datetime.now(UTC)
    loaded = load_policy(options["policy_file"], now)
    commit = None if options["commit"] is None else Commit(options["commit"])
    reference = parse_reference(options["reference"])
    with progress(quiet=as_json) as show:
        found = verify_image(
            stores_of(options),
            _offline(reference, options["offline"]),
            loaded.policy,
            Asked(commit, options["system"], options["deep"]),
            judges_of(loaded, _state(options), ask=options["offline"] is None),
            now,
            evidence=[parse_reference(each) for each in options["evidence"]],
            on_event=show,
        )
    if as_json:
        click.echo(json.dumps(verification_json(found)))
    else:
        click.echo("\n".join(verification_lines(found)))
    click.get_current_context().exit(found.exit_code)


def _state(options: dict[str, Any]) -> Path | None:
    """Return the directory of checkpoints, which `nix-seed log check` uses as well."""
    if options["no_state"]:
        if options["state"] is not None:
            raise click.UsageError("--state and --no-state exclude each other")
        return None
    given: Path | None = options["state"]
    return given or state_directory()


def _offline(reference: AnyReference, directory: Path | None) -> AnyReference:
    """Return where the exported copy of *reference* lies."""
    if directory is None:
        return reference
    from nix_seed.flows.export import exported

    return exported(reference, directory)
