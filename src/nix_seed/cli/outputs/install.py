"""``nix-seed install``."""

from typing import Any

import click

from nix_seed.cli import options as shared
from nix_seed.cli.command import PATH, option, progress, seed_command
from nix_seed.cli.say import answer
from nix_seed.formats.oci.reference import parse_reference


@seed_command("install")
@click.argument("commit")
@option("--output NAME", default="packages.default")
@option("--from REF", "Where COMMIT was published [the image of seed.lock].", into="place")
@shared.policy_option("Whom to believe, and how many.")
@option(
    "--link FILE",
    "The link that keeps it from the garbage collector.",
    type=PATH,
    default="result",
)
@shared.store_option
@shared.registry_options
@shared.json_option
def command(**options: Any) -> None:
    """Take the output of COMMIT that was promoted as NAME into this machine's Nix store.

    COMMIT is verified first. Taken is exactly the NAR that the quorum stands for, on its word.
    """
    from nix_seed.core.processes import current_system
    from nix_seed.outputs.install import Promise, install
    from nix_seed.outputs.promoted import promoted_output
    from nix_seed.release.load import verifiers_of
    from nix_seed.release.verify import Query, verify_commit

    loaded = shared.policy_of(options)
    commit, system = shared.commit_named(options["commit"]), current_system()
    place = parse_reference(
        options["place"] or shared.locked_image("the repository that has the commit is not named")
    )
    nix = shared.nix_of(options)
    with progress():
        by = verifiers_of(loaded, shared.stores_of(options), shared.state_directory())
        found = verify_commit(by, place, Query(commit, system))
        output, released = promoted_output(by, [place], found, options["output"], system)
        install(by, place, Promise(output, released), nix)
        nix.add_root(options["link"].absolute(), output.path)
    value = {"output": output.to_json(), "link": str(options["link"])}
    answer(value, f"{options['output']}: {output.path}, at {options['link']}")
