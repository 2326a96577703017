"""``nix-seed ci setup``."""

import click


@click.command("setup", short_help="Say what this machine has.")
def command() -> None:
    """Say whether there is a Nix (output ``nix``), and which; nothing is changed.

    The output ``seconds`` is what setting up nix-seed itself took, empty where it was there.
    """
    from nix_seed.cli.setup.ci_options import take_secrets
    from nix_seed.flake.evaluate import current_system
    from nix_seed.flake.nix import Nix
    from nix_seed.setup.ci_host import CiHost

    take_secrets()  # Nix is asked for its version
    host, nix = CiHost(), Nix()
    found = nix.is_at_hand()
    host.say(f"system  {current_system()}")
    host.say(f"nix     {nix.version() if found else 'none yet'}")
    seconds = "" if host.setup_seconds is None else str(host.setup_seconds)
    host.set_outputs({"nix": str(found).lower(), "seconds": seconds})
