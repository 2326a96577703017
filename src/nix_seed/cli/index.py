"""``nix-seed index``."""

from __future__ import annotations

import json
from typing import Any

import click

from nix_seed.cli.options import json_option
from nix_seed.cli.registry_options import jobs_option, registry_options, stores_of

__all__ = ["command"]


@click.command("index", short_help="Publish one index over the images of all systems.")
@click.argument("target", metavar="REF")
@click.argument("more", nargs=-1, metavar="[IMAGE]...")
@click.option(
    "--system-images",
    "images",
    multiple=True,
    metavar="IMAGE",
    help="One system's image; the same as naming it after REF.",
)
@click.option(
    "--system",
    "systems",
    multiple=True,
    metavar="SYSTEM",
    help="A system the index must have; nothing is published while one lacks.",
)
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="A further tag, moved last.")
@jobs_option
@registry_options
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Publish at REF an index of IMAGEs, one for each system.

    Each image says itself for which system it is. Images that lie elsewhere are copied first; the
    tags are moved when everything is there.
    """
    from nix_seed.cli.transfer_progress import transfer_progress
    from nix_seed.flows.index import build_index
    from nix_seed.formats.oci.reference import parse_reference

    target = parse_reference(options["target"])
    with transfer_progress(quiet=as_json) as show:
        done = build_index(
            stores_of(options),
            target,
            [parse_reference(image) for image in (*options["images"], *options["more"])],
            systems=options["systems"],
            tags=options["tags"],
            jobs=options["jobs"],
            on_event=show,
        )
    reference = str(target.at(done.descriptor.digest))
    if as_json:
        systems = {member.system: str(member.descriptor.digest) for member in done.members}
        value = {"reference": reference, "digest": str(done.descriptor.digest)}
        click.echo(json.dumps(value | {"tags": list(done.tags), "systems": systems}))
        return
    click.echo(f"{reference}\ntags: {', '.join(done.tags)}")
    for member in done.members:
        click.echo(f"  {member.system:16} {member.descriptor.digest}")
