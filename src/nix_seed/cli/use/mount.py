"""``nix-seed mount``."""

import os
from dataclasses import replace
from typing import Any

import click

from nix_seed.cli.command import option, progress, seed_command
from nix_seed.cli.options import (
    json_option,
    project_option,
    registry_options,
    stores_of,
    trusted,
    verify_options,
)
from nix_seed.cli.say import answer
from nix_seed.cli.use.hydrate import hydrated_text, root_option
from nix_seed.core.errors import InputError
from nix_seed.formats.oci.reference import parse_reference


@seed_command("mount")
@click.argument("source", metavar="REF")
@root_option
@option("--system SYSTEM", "Of an index, this system's image [this machine's].")
@option("--keep", "Leave it mounted until `nix-seed unmount`.")
@option("--complete", "Return only once every path lies in the store itself.")
@project_option("The project, by whose trust.toml the seed is verified.")
@verify_options
@registry_options
@json_option
def command(**options: Any) -> None:
    """Have the seed REF in a Nix store at once: mounted, and filled behind your back.

    Takes root, on Linux. Only what is read is fetched first. The mount leaves when every path lies
    in the store, or with --keep when you say so. Where a seed cannot be mounted, the command fails
    and says why; `nix-seed hydrate` unpacks it.
    """
    from nix_seed.core.processes import current_system
    from nix_seed.use.hydrate import Place, mount_seed
    from nix_seed.use.mount.linux import NotMountable
    from nix_seed.use.mount.store import wait_until_whole

    if options["keep"] and options["complete"]:
        raise InputError("--keep and --complete exclude one another", hint="leave one out")
    stores, reference = stores_of(options), parse_reference(options["source"])
    system = options["system"] or current_system()
    with progress():
        reference = trusted(options, stores, reference, system, options["src"])
        where = Place(options["root"], system)
        try:
            done = mount_seed(stores, reference, where, keep=options["keep"])
        except NotMountable as error:
            # To unpack into the machine's own store takes root, too.
            root = where.root if os.access(where.root, os.W_OK) else "DIR"
            error.hint = f"unpack it: nix-seed hydrate {reference} --root {root}"
            raise
    if options["complete"]:
        wait_until_whole(options["root"])
        done = replace(done, whole=True)
    answer(done.to_json(), hydrated_text(done))
