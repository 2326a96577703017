"""``nix-seed attest``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nix_seed.cli import options as shared
from nix_seed.cli.command import argument, option, progress, seed_command
from nix_seed.cli.say import answer
from nix_seed.cli.sbom.sbom import sbom_option, sboms_of
from nix_seed.cli.trust.options import attester_of, signer_of, signing_options
from nix_seed.core.files import cache_directory
from nix_seed.core.words import members
from nix_seed.formats.oci.reference import parse_reference
from nix_seed.release.attester import Attester, SourceTree

if TYPE_CHECKING:
    from nix_seed.registry.open import AnyReference
    from nix_seed.release.attest import Attested


@seed_command("attest")
@argument("reference", "IMAGE")
@option("--flake DIR", "The checkout the image was built from.", default=".")
@option("--attr NAME", "Attribute made by mkSeed or mkRun [seed, run].")
@option("--builder ID", "This builder's id in the policy [the one whose signer this is].")
@signing_options
@sbom_option
@option("--allow-dirty", "Attest a tree with changes, and say so: no quorum counts it.")
@shared.store_option
@shared.registry_options
@shared.json_option
def command(**options: Any) -> None:
    """State that IMAGE is what this machine built from the commit checked out in DIR.

    The facts come from the image, the Nix store and Git. The flake, evaluated at its commit, must
    ask for just what the image holds, and the store must yield it bit for bit. The statement is
    signed, logged to every log of the policy, and attached to the image, beside its bill of
    materials.
    """
    tree, attester = statement_of(options)
    state(parse_reference(options["reference"]), tree, attester, options)


def statement_of(options: dict[str, Any]) -> tuple[SourceTree, Attester]:
    """Return of what, and by whom, *options* want a statement; nothing is asked or sent for it."""
    sboms = sboms_of(options["sboms"])
    signer = signer_of(options["key"], options["sigstore"])
    attester = attester_of(signer, options["builder"], options["policy_file"], sboms)
    dirty = options.get("allow_dirty", False)
    return SourceTree(options["flake"], options["source"], options["attr"], dirty), attester


def state(
    reference: AnyReference, tree: SourceTree, attester: Attester, options: dict[str, Any]
) -> None:
    """Attest the image and print what was stated."""
    from nix_seed.image.layer_cache import LayerCache
    from nix_seed.release.attest import Workshop, attest

    with progress():
        done = attest(
            Workshop(
                shared.stores_of(options), shared.nix_of(options), LayerCache(cache_directory())
            ),
            reference,
            tree,
            attester,
        )
    answer(_json(done), _lines(done))


def _json(done: Attested) -> dict[str, Any]:
    return members(done, "image", "signer", "logs") | {
        "predicate": done.predicate.to_json(),
        "referrers": [str(each.digest) for each in done.referrers],
        "sboms": [str(each.digest) for each in done.sboms],
    }


def _lines(done: Attested) -> list[str]:
    said = done.predicate
    paths = said.paths
    dirty = " (dirty: no quorum counts this)" if said.source.dirty else ""
    return [
        f"{said.builder} states, signed by {done.signer}:",
        f"  commit   {said.source.commit} of {said.source.uri}{dirty}",
        f"  system   {said.system}",
        f"  narHash  {said.nar_hash}",
        f"  image    {said.image_digest}",
        f"  paths    {paths.built} built here, {paths.substituted} substituted, "
        f"{paths.added} added, {paths.unexplained} of unknown origin",
        f"  logs     {', '.join(done.logs) or 'none'}",
    ]
