"""``nix-seed outputs``."""

from nix_seed.cli.command import seed_group
from nix_seed.cli.outputs.check import check_command
from nix_seed.cli.outputs.clean import clean_command
from nix_seed.cli.outputs.push import push_command
from nix_seed.cli.outputs.rebuild import rebuild_command
from nix_seed.cli.outputs.serve import serve_command


@seed_group("outputs")
def command() -> None:
    """Keep what a project builds in its registry, serve it to Nix, and compare it."""


for _each in (push_command, serve_command, check_command, clean_command, rebuild_command):
    command.add_command(_each)
