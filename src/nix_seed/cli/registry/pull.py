"""``nix-seed pull``."""

from typing import Any

from nix_seed.cli.command import argument, option, progress, seed_command
from nix_seed.cli.options import jobs_option, json_option, registry_options, stores_of
from nix_seed.cli.registry.push import transferred_json, transferred_text
from nix_seed.cli.say import answer
from nix_seed.core.errors import InputError
from nix_seed.formats.oci.reference import LayoutReference, parse_reference


@seed_command("pull")
@argument("source", "REF")
@argument("target", "oci:DIR[:TAG]")
@option("--system SYSTEM", "Of an index, this system's image only [all].")
@jobs_option
@registry_options
@json_option
def command(**options: Any) -> None:
    """Copy the image or index REF into an OCI image layout on disk.

    Every byte is checked against its digest before it gets a name. The next try goes on from where
    an interrupted one was.
    """
    from nix_seed.registry.transfer import pull

    target = parse_reference(options["target"])
    if not isinstance(target, LayoutReference):
        raise InputError(
            f"{target} is in a registry; pull copies to this machine",
            hint=f"nix-seed push {options['source']} {target}",
        )
    with progress():
        done = pull(
            stores_of(options), parse_reference(options["source"]), target, system=options["system"]
        )
    reference = str(target.at(done.tags[0]))
    answer(transferred_json(done, reference), transferred_text(done, reference))
