"""``nix-seed ci store``: what ``ci use`` runs as root."""

from pathlib import Path

import click

from nix_seed.cli.say import say


@click.command("store", hidden=True)
@click.argument("user", type=click.IntRange(min=0))
@click.option("--root", type=click.Path(path_type=Path, file_okay=False), default="/")
def command(user: int, root: Path) -> None:
    """Make an empty /nix that belongs to USER, a number."""
    from nix_seed.setup.ci_host import make_store_for

    make_store_for(user, root)
    say("{}")
