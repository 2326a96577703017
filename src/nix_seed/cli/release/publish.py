"""``nix-seed publish``: build, push and attest in one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from nix_seed.cli import options as shared
from nix_seed.cli.command import EXISTING_DIRECTORY, argument, option, progress, seed_command
from nix_seed.cli.image.build import command as build, repository_of
from nix_seed.cli.lazily import lazily
from nix_seed.cli.release.attest import state, statement_of
from nix_seed.cli.say import manner, say
from nix_seed.cli.sbom.sbom import sbom_option
from nix_seed.cli.trust.options import signing_options
from nix_seed.core.errors import InputError
from nix_seed.core.processes import current_system
from nix_seed.formats.oci.reference import LayoutReference, parse_reference
from nix_seed.release.attester import Attester, SourceTree

with lazily():
    from nix_seed.formats.intoto import statement as intoto
    from nix_seed.image import inspect, push as pushes, request as requests
    from nix_seed.registry import open as registries
    from nix_seed.release import preflight


@seed_command("publish")
@argument("reference", "IMAGE")
@option(
    "--flake DIR",
    "The checkout to build and attest.",
    default=".",
    type=EXISTING_DIRECTORY,
)
@shared.made_options
@option("--builder ID", "This builder's id in the policy [the signer's].")
@signing_options
@sbom_option
@shared.store_option
@shared.registry_options
@shared.json_option
def command(reference: str, **options: Any) -> None:
    """Build the checkout in DIR, store its image as IMAGE, and attest that.

    IMAGE is a tag in a registry, or oci:DIR:TAG. Every layer is made anew from this machine's
    store, whatever others pushed before: only what one has made oneself is worth attesting. In a
    registry it gets its tags last: whoever finds it by a name finds its builder's word as well.
    Images to build in, and images to ship, go to repositories of their own.
    """
    ctx = click.get_current_context()
    target = parse_reference(reference)
    tree, attester = _prepare(target, options)
    passed = {name: options[name] for name in ("attr", "exclude", "store")}
    passed |= {name: options[name] for name in _REGISTRY}
    where = (
        {"output": Path(target.directory), "tag": target.tag}
        if isinstance(target, LayoutReference)
        else {"push": reference, "untagged": True}
    )
    flake = str(options["flake"].absolute())
    asked = manner()
    if asked.json:
        asked.parts = []
    how = {"system": options["system"], "kind": options["kind"], "no_reuse": True}
    pushed = ctx.invoke(build, flake=flake, **how, **where, **passed)
    image = parse_reference(pushed.reference) if pushed else target
    state(image, tree, attester, options)
    tags = _name(pushed, reference, options) if pushed else ()
    if asked.json:
        built, attested = asked.parts or []
        asked.parts = None
        say({"image": built, "attestation": attested, "tags": list(tags)})
    elif tags:
        say("\n".join(f"tag        {tag}" for tag in tags))


def _prepare(
    target: registries.AnyReference, options: dict[str, Any]
) -> tuple[SourceTree, Attester]:
    """Refuse, before anything is built, all that can be known to fail after it."""
    if target.tag is None or target.digest is not None:
        raise InputError(f"{target} is no tag to publish to", hint=f"such as {target}:seed")
    if target.tag == "latest" or intoto.is_commit(target.tag):
        # An audit would raise the alarm, rightly.
        raise InputError(
            f"{target}: a name of the index over all systems; publish makes one's image",
            hint="publish under another name, such as dev; nix-seed promote gives this one",
        )
    tree, attester = statement_of(options)
    system, stores = options["system"] or current_system(), shared.stores_of(options)
    with progress(quiet=False):
        ready = preflight.prepare_attest(tree, attester, system)
        registries.check_writable(stores, target)
        _check_alone(stores, target.at(f"{ready.source.commit}-{system}"), options["kind"])
    return tree, attester


def _check_alone(stores: registries.Stores, named: registries.AnyReference, kind: str) -> None:
    """Refuse an image of another *kind* than that of the same commit, which *named* names.

    One builder's word on both would be two words on one commit.
    """
    if registries.is_to_be_made(named) or registries.find(stores, named) is None:
        return
    there = inspect.inspect(stores, named)
    if isinstance(there, inspect.InspectedImage) and there.kind not in (None, kind):
        raise InputError(
            f"{named} is an image of the kind {there.kind}, and this one is a {kind} image",
            hint="publish images to build in, and images to ship, to repositories of their own",
        )


def _name(pushed: pushes.Pushed, reference: str, options: dict[str, Any]) -> Sequence[str]:
    repository, target = repository_of(options, reference)
    tags = (*requests.tags_of(pushed.built.plan.evaluated), *filter(None, (target.tag,)))
    return requests.name_image(repository, target.at(pushed.built.digest), tags)


_REGISTRY = ("username", "password_stdin", "plain_http", "ca_file")
