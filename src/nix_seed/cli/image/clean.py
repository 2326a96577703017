"""``nix-seed clean``."""

import time
from typing import Any

import click

from nix_seed.cli.command import seed_command
from nix_seed.cli.options import cache_directory
from nix_seed.cli.say import say
from nix_seed.core.words import human_size, plural

_DAY = 24 * 3600


@seed_command("clean")
@click.option(
    "--days",
    type=click.IntRange(min=0),
    default=14,
    show_default=True,
    metavar="N",
    help="Keep unpacked images used in the last N days.",
)
@click.option(
    "--layers",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    metavar="GB",
    help="Keep that much of the layers, those used last.",
)
@click.option("--images", is_flag=True, help="Remove the images built without -o as well.")
def command(**options: Any) -> None:
    """Clear away layers, unpacked images and, with --images, images in the cache.

    Images written with -o are never touched. Whatever is gone is made again when it is needed.
    """
    from nix_seed.image.layer_cache import LayerCache
    from nix_seed.image.read.unpack import clear, clear_unpacked

    cache = cache_directory()
    freed = LayerCache(cache).prune(options["layers"] * 10**9)
    roots = clear_unpacked(cache / "roots", time.time() - options["days"] * _DAY)
    if options["images"]:
        clear(cache / "images")
    say(f"{human_size(freed)} of layers, {plural(len(roots), 'unpacked image')} cleared")
