"""``nix-seed outputs clean``."""

from datetime import UTC, datetime
from typing import Any

import click

from nix_seed.cli.command import option, seed_command
from nix_seed.cli.options import json_option, project_option, registry_options, stores_of
from nix_seed.cli.say import answer
from nix_seed.core.words import human_size, members, plural
from nix_seed.formats.oci.reference import parse_reference


@seed_command("clean")
@click.argument("reference", metavar="REF")
@option("--keep AGE", "Keep what was pushed in that time: 30d, 12h, 8w.", into="age", default="30d")
@option("--keep-tags", "Keep what was built from a tagged commit, too.")
@project_option("The checkout whose tags are meant.")
@registry_options
@json_option
def clean_command(**options: Any) -> None:
    """Drop outputs from REF that nobody has pushed for long.

    Safe beside running jobs: what they push is new, and what they miss is built. A registry frees
    the space when it collects its garbage.
    """
    from nix_seed.flake.checkout import tagged_commits
    from nix_seed.outputs.clean import clean_outputs, parse_age

    oldest = datetime.now(UTC) - parse_age(options["age"])
    commits = tagged_commits(options["src"]) if options["keep_tags"] else frozenset()
    store = stores_of(options).open(parse_reference(options["reference"]))
    done = clean_outputs(store, oldest, commits)
    text = f"{plural(done.dropped, 'output')} dropped, {done.kept} kept"
    if not (done.dropped or done.kept or done.troubles):
        text = f"{store} lists no outputs: nothing was kept there, or it lists no tags"
    text += f"; {human_size(done.freed)} freed" if done.freed else ""
    text += "".join(f"\nleft as it is: {each}" for each in done.troubles)
    answer(members(done, "dropped", "kept", "freed", "troubles"), text)
