"""``nix-seed prove``."""

from typing import Any

import click

from nix_seed.cli import options as shared
from nix_seed.cli.command import option, progress, seed_command
from nix_seed.cli.say import manner, say


@seed_command("prove")
@shared.seed_options(("bwrap", "podman", "docker"), "The project.")
@option("--system SYSTEM", "Nix system [this machine's].")
@shared.json_option
def command(**options: Any) -> None:
    """Plan every output of the project's flake inside the seed, with no network.

    What would still have to be fetched is named, with the way to add it (exit code 1). Flake inputs
    that the seed must not pass on are fetched first, once you accept their licences.
    """
    from nix_seed.core.processes import current_system
    from nix_seed.core.words import plural
    from nix_seed.flake.nix import Nix
    from nix_seed.flake.rules.choice import DEFAULT_ATTR
    from nix_seed.use.engines import choose_engine
    from nix_seed.use.prove import ProvedFlake, check_proof, prove
    from nix_seed.use.withheld import needed_to_evaluate, obtain_withheld, spec_of

    nix, source = Nix(), options["src"]
    with progress():
        engine = choose_engine(options["engine"], shared.unpacking_cache())
        image = shared.open_seed(options, nix, options["system"])
        spec = spec_of(image)
        accepted = shared.accepted_licences(
            options["accept_licence"], shared.policy_used(options, source)
        )
        obtained = (
            ()
            if spec is None
            else obtain_withheld(
                nix, needed_to_evaluate(spec), accepted, str(source.absolute()), options["attr"]
            )
        )
        proof = prove(
            engine,
            image,
            ProvedFlake(
                source,
                options["system"] or current_system(),
                options["attr"] or DEFAULT_ATTR["seed"],
            ),
            nix=nix,
            obtained=obtained,
        )
    if manner().json:
        say(proof.to_json(), indent=2)
        click.get_current_context().exit(0 if proof.complete else 1)
    check_proof(proof)
    say(f"complete: all {plural(len(proof.outputs), 'output')} can be built offline")
    if proof.left_out:
        say(f"left out of the seed: {', '.join(proof.left_out)}")
