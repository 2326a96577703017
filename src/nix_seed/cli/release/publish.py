"""``nix-seed publish``: build, push and attest in one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nix_seed.cli.command import seed_command
from nix_seed.cli.options import registry_options, store_option
from nix_seed.cli.sbom.sbom import sbom_option, sboms_of
from nix_seed.cli.trust.options import signing_options

if TYPE_CHECKING:
    from nix_seed.image.push import Pushed


@seed_command("publish")
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
    store, whatever others pushed before: only what one has made oneself is worth attesting. In a
    registry it gets its tags last: whoever finds it by a name finds its builder's word as well.
    """
    from nix_seed.cli.image.build import command as build
    from nix_seed.cli.release.attest import command as attest
    from nix_seed.core.errors import InputError
    from nix_seed.flake.checkout import read_checkout
    from nix_seed.formats.oci.reference import LayoutReference, parse_reference

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
        else {"push": reference, "untagged": True}
    )
    flake = str(options["flake"].absolute())
    pushed = ctx.invoke(
        build, flake=flake, system=options["system"], no_reuse=True, **where, **shared
    )
    signing = {name: options[name] for name in _SIGNING}
    image = pushed.reference if pushed else reference
    ctx.invoke(attest, reference=image, flake=options["flake"], **signing, **shared)
    if pushed:
        _name(pushed, reference, options)


def _name(pushed: Pushed, reference: str, options: dict[str, Any]) -> None:
    from nix_seed.cli.image.build_steps import repository_of
    from nix_seed.cli.say import say
    from nix_seed.image.push import name_image, tags_of

    repository, target = repository_of(options, reference)
    tags = (*tags_of(pushed.built.plan.evaluated), *filter(None, (target.tag,)))
    named = name_image(repository, target.at(pushed.built.digest), tags)
    say("\n".join(f"tag        {tag}" for tag in named))


_REGISTRY = ("username", "password_stdin", "plain_http", "ca_file")
_SIGNING = ("builder", "policy_file", "key", "sigstore", "source", "sboms")
