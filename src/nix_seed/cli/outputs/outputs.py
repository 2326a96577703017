"""``nix-seed outputs``."""

from nix_seed.cli.command import seed_group
from nix_seed.cli.outputs.push import push_command
from nix_seed.cli.outputs.serve import serve_command


@seed_group("outputs")
def command() -> None:
    """Keep what a project builds in its registry, and serve it to Nix."""


for _each in (push_command, serve_command):
    command.add_command(_each)
