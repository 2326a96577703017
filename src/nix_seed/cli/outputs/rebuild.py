"""``nix-seed outputs rebuild``."""

from typing import Any

import click

from nix_seed.cli import options as shared
from nix_seed.cli.command import option, progress, seed_command
from nix_seed.cli.say import answer
from nix_seed.cli.trust.options import attester_of, signer_of, signing_options
from nix_seed.formats.oci.reference import parse_reference


@seed_command("rebuild", short_help="Build a commit's outputs again, and compare.")
@click.argument("commit")
@option("--to REF", "Where outputs are kept.", into="target", required=True)
@option(
    "--from REF",
    "Where COMMIT's seed is: host/name or oci:DIR [the image of seed.lock].",
    into="seed",
)
@option("--builder ID", "This builder's id [the one whose signer this is].")
@shared.project_option("A checkout that has COMMIT.")
@shared.accept_option
@signing_options
@shared.registry_options
@shared.json_option
def rebuild_command(**options: Any) -> None:
    """Build COMMIT's packages and checks again, in its verified seed, and push what came out.

    As an independent builder does: from a clone of its own, in a store that holds the seed alone,
    with no network and no output that anyone made before. What came out is signed whatever others
    got; `nix-seed outputs check COMMIT` then compares.
    """
    from nix_seed.cli.outputs.options import pushed_json, pushed_text
    from nix_seed.core.processes import current_system
    from nix_seed.flake.checkout import DEFAULT_POLICY
    from nix_seed.outputs.rebuild import RebuildRequest, rebuild
    from nix_seed.release.load import load_policy, verifiers_of

    policy_file = options["policy_file"] or DEFAULT_POLICY
    loaded = load_policy(policy_file)
    signer = signer_of(options["key"], options["sigstore"])
    attester = attester_of(signer, options["builder"], policy_file)
    target = parse_reference(options["target"])
    request = RebuildRequest(
        shared.commit_named(options["commit"]),
        current_system(),
        parse_reference(
            options["seed"]
            or shared.locked_image("the repository of the commit's seed is not named")
        ),
        options["src"],
        options["source"],
        (*options["accept_licence"], *loaded.policy.licences),
    )
    with progress():
        by = verifiers_of(loaded, shared.stores_of(options), shared.state_directory())
        done = rebuild(by, request, target, attester)
    answer(pushed_json(done), pushed_text(done))
