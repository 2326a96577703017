"""``nix-seed publish``: build, push and attest in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nix_seed.cli.options import store_option
from nix_seed.cli.registry_options import registry_options
from nix_seed.cli.sbom import sbom_option, sboms_of
from nix_seed.cli.signer_options import signing_options

__all__ = ["command"]


@click.command("publish", short_help="Build, push and attest in one.")
@click.argument("reference", metavar="IMAGE")
@click.option(
    "--flake",
    default=".",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="The checkout to build and attest [.].",
)
@click.option("--attr", metavar="NAME", help="Attribute made by mkSeed or mkRun [seed, run].")
@click.option("--system", metavar="SYSTEM", help="Nix system [this machine's].")
@click.option("--builder", metavar="ID", help="This builder's id in the policy [the signer's].")
@signing_options
@sbom_option
@store_option
@registry_options
def command(reference: str, **options: Any) -> None:
    """Build the checkout in DIR, store its image as IMAGE, and attest that.

    IMAGE is a tag in a registry, or oci:DIR:TAG. Every layer is made anew from this machine's
    store, whatever others pushed before: only what one has made oneself is worth attesting.
    """
    from nix_seed.cli.attest import command as attest
    from nix_seed.cli.build import command as build
    from nix_seed.clients.git import read_checkout
    from nix_seed.formats.oci.reference import LayoutReference, parse_reference
    from nix_seed.ground.errors import InputError

    sboms_of(options["sboms"])  # a format that cannot be written stops it before anything is built
    ctx = click.get_current_context()
    target = parse_reference(reference)
    if target.tag is None or target.digest is not None:
        raise InputError(f"{reference} is no tag to publish to", hint=f"such as {reference}:seed")
    checkout = read_checkout(options["flake"])
    if checkout.dirty:
        raise InputError(
            f"{options['flake']} has changes that no commit holds",
            detail="\n".join(checkout.changes[:10]),
            hint="commit them: what is published is a commit",
        )
    shared = {name: options[name] for name in ("attr", "store")}
    shared |= {name: options[name] for name in _REGISTRY}
    where = (
        {"output": Path(target.directory), "tag": target.tag}
        if isinstance(target, LayoutReference)
        else {"push": reference}
    )
    flake = str(options["flake"].absolute())
    ctx.invoke(build, flake=flake, system=options["system"], no_reuse=True, **where, **shared)
    signing = {name: options[name] for name in _SIGNING}
    ctx.invoke(attest, reference=reference, flake=options["flake"], **signing, **shared)


_REGISTRY = ("username", "password_stdin", "plain_http", "ca_file")
_SIGNING = ("builder", "policy_file", "key", "sigstore", "source", "sboms")
