"""``nix-seed outputs``."""

from nix_seed.cli.command import seed_group


@seed_group("outputs")
def command() -> None:
    """Keep what a project builds in its registry, serve it to Nix, and compare it."""
