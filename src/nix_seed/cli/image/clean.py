"""``nix-seed clean``."""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from nix_seed.cli.command import option, seed_command
from nix_seed.cli.options import json_option
from nix_seed.cli.say import answer
from nix_seed.core.files import cache_directory
from nix_seed.core.words import human_size, plural

_DAY = 24 * 3600


@seed_command("clean")
@option(
    "--days N",
    "Keep unpacked images used in the last N days, and results made in them.",
    type=click.IntRange(min=0),
    default=14,
)
@option(
    "--layers GB",
    "Keep that much of the layers, those used last.",
    type=click.IntRange(min=0),
    default=20,
)
@option("--images", "Remove the images built without -o as well.")
@option("--dry-run", "Remove nothing: only say what would go.")
@json_option
def command(**options: Any) -> None:
    """Clear away layers, unpacked images and, with --images, images in the cache.

    Images written with -o are never touched. Whatever is gone is made again when it is needed.
    """
    from nix_seed.image.layer_cache import LayerCache
    from nix_seed.image.read.unpack import clear, clear_unpacked
    from nix_seed.use.engines.mounted import clear_mounted
    from nix_seed.use.results import clear_results

    cache = cache_directory()
    dry = options["dry_run"]
    freed = LayerCache(cache).prune(options["layers"] * 10**9, dry=dry)
    before = time.time() - options["days"] * _DAY
    roots = clear_unpacked(cache / "roots", before, dry=dry)
    roots += clear_mounted(cache, before, dry=dry)
    results = clear_results(cache / "results", before, dry=dry)
    gone = [f"{human_size(freed)} of layers", plural(len(roots), "unpacked image")]
    if results:
        gone.append(plural(len(results), "result"))
    if options["images"]:
        gone.append(f"{human_size(_size(cache / 'images'))} of images")
        if not dry:
            clear(cache / "images")
    kept = {name: sum(_size(cache / each) for each in places) for name, places in _PLACES.items()}
    reasons = {
        "layers": f"up to {options['layers']} GB, those used last (--layers)",
        "unpacked": f"images used in the last {plural(options['days'], 'day')} (--days)",
        "images": "images built without -o (--images removes them)",
        "results": f"what links lead to, or of the last {plural(options['days'], 'day')} (--days)",
    }
    lines = (
        f"{', '.join(gone)} {'would be cleared' if dry else 'cleared'}",
        f"what {'is' if dry else 'stays'} in {cache}:",
        *(f"  {human_size(size):>10}  {name:8}  {reasons[name]}" for name, size in kept.items()),
        "images written with -o, and what logs showed (~/.local/state/nix-seed), are not touched",
    )
    value = {
        "cache": str(cache),
        "freed": freed,
        "unpacked": len(roots),
        "results": len(results),
        "kept": kept,
    }
    if dry:
        value["dryRun"] = True
    answer(value, lines)


_PLACES = {
    "layers": ("blobs",),
    "unpacked": ("roots", "mounted"),
    "images": ("images",),
    "results": ("results",),
}


def _size(directory: Path) -> int:
    """Return what the files below *directory* take; those with several names count once."""
    sizes: dict[tuple[int, int], int] = {}
    for parent, _, names in os.walk(directory):
        for name in names:
            with suppress(OSError):
                found = os.lstat(os.path.join(parent, name))
                sizes[found.st_dev, found.st_ino] = found.st_blocks * 512
    return sum(sizes.values())
