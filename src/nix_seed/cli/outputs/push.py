"""``nix-seed outputs push``."""

from typing import Any

import click

from nix_seed.cli import options as shared
from nix_seed.cli.command import option, progress, seed_command
from nix_seed.cli.say import answer
from nix_seed.cli.trust.options import attester_of, signer_of, signing_options
from nix_seed.formats.oci.reference import parse_reference


@seed_command("push", short_help="Keep what this machine built in the registry.")
@click.argument("installables", nargs=-1, metavar="[INSTALLABLE]…")
@option("--to REF", "Where they are kept.", into="target", required=True)
@option("--image REF", "The seed they were built in [the one built here].")
@shared.project_option("The checkout they were built from.")
@shared.attr_option
@option("--builder ID", "This builder's id in the policy [the one whose signer this is].")
@signing_options
@shared.store_option
@shared.jobs_option
@shared.registry_options
@shared.json_option
def push_command(**options: Any) -> None:
    """Keep what this machine built of the project in the registry's REF, signed.

    Of the INSTALLABLEs, or of all packages and checks, that is each output of the project's own
    derivations that the store has, and what it refers to beyond the seed. What is there already is
    not sent again. A tree with changes is refused: its outputs belong to no commit.
    """
    from nix_seed.cli.outputs.options import branch_at_hand, pushed_json, pushed_text, seed_named
    from nix_seed.outputs.push import OutputChoice, OutputsTarget, check_commit, push_outputs
    from nix_seed.release.attester import SourceTree

    target = parse_reference(options["target"])
    check_commit(options["src"])
    signer = signer_of(options["key"], options["sigstore"])
    attester = attester_of(signer, options["builder"], options["policy_file"])
    nix = shared.nix_of(options)
    with progress():
        done = push_outputs(
            OutputsTarget(shared.stores_of(options), target, nix),
            seed_named(options, nix),
            SourceTree(options["src"], options["source"]),
            attester,
            OutputChoice(options["installables"], ref=branch_at_hand()),
        )
    answer(pushed_json(done), pushed_text(done))
