"""What ``nix-seed build`` says of an image: a table for people, an object for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

from nix_seed.cli.say import say, say_lines
from nix_seed.cli.table import say_table
from nix_seed.core.members import members
from nix_seed.core.words import human_size, plural, shortened

if TYPE_CHECKING:
    from nix_seed.formats.oci.reference import Reference
    from nix_seed.image.build import Built, BuiltLayer
    from nix_seed.image.push import Pushed
    from nix_seed.image.request import Evaluated
    from nix_seed.image.rules.spec import Spec
    from nix_seed.registry.store import Fetched
    from nix_seed.use.prove import Proof


def build_json(built: Built, reference: str, proof: Proof | None, **more: Any) -> None:
    """Print the image as one JSON object (sizes in bytes), with *more* members."""
    spec = members(built.plan.spec, "nar_hash", "kind", "name", "system")
    value = (
        members(built, "digest", inputKey="plan.input_key")
        | spec
        | {
            "built": True,
            "reference": reference,
            "size": sum(layer.layer.descriptor.size for layer in built.layers),
            "layers": [_layer_json(layer) for layer in built.layers],
            "unknownLicences": [str(each.path) for each in built.plan.spec.unknown],
        }
    )
    if proof is not None:
        value["proof"] = proof.to_json()
    say(value | more, indent=2)


def _layer_json(layer: BuiltLayer) -> dict[str, Any]:
    blob = {"digest": "layer.descriptor.digest", "size": "layer.descriptor.size"}
    return members(layer, "tier", "paths", "reused", diffId="layer.diff_id", **blob)


def print_build(built: Built, reference: str, proof: Proof | None, *, cached: bool) -> None:
    """Print the image: a table of tiers, what names it, and what to do with it.

    *cached*: it lies in the cache, where ``nix-seed run`` looks for it by itself.
    """
    spec = built.plan.spec
    _print_tiers(built)
    say_lines(["", *_names(built, reference), *_proof_lines(proof), *_licence_lines(spec)])
    if spec.kind == "seed" and reference.startswith("oci:"):
        named = "" if cached else f"--image {reference} "
        say(f"\nbuild in it:\n  nix-seed run {named}-- nix build")
    elif reference.startswith("oci:"):
        say(f"\nstart it:\n  podman run --rm {reference}")


def _print_tiers(built: Built) -> None:
    tiers = groupby(built.layers, key=lambda layer: layer.tier)
    rows = [[tier, *_cells(list(layers))] for tier, layers in tiers]
    titles = ["tier", "layers", "paths", "unpacked", "compressed", "reused"]
    say_table(titles, [*rows, ["together", *_cells(built.layers)]], right=range(1, 6))


def _licence_lines(spec: Spec) -> Iterator[str]:
    """Say what no later step would: that registries for all will refuse the image."""
    if not spec.unknown:
        return
    names = shortened([each.path.name for each in spec.unknown], 3)
    yield f"licences   of {plural(len(spec.unknown), 'store path')} not known: {names}"
    yield "           a public registry will refuse the image; nix-seed licences says more"


def _names(built: Built, reference: str) -> list[str]:
    return [
        f"image      {reference}",
        f"digest     {built.digest}",
        f"narHash    {built.plan.spec.nar_hash}",
        f"input key  {built.plan.input_key}",
    ]


def _cells(layers: Iterable[BuiltLayer]) -> list[str]:
    found = list(layers)
    reused = [layer for layer in found if layer.reused]
    return [
        str(len(found)),
        str(sum(len(layer.paths) for layer in found)),
        human_size(sum(layer.layer.tar_size for layer in found)),
        human_size(sum(layer.layer.descriptor.size for layer in found)),
        f"{len(reused)} of {len(found)}",
    ]


def _proof_lines(proof: Proof | None) -> Iterable[str]:
    if proof is None:
        return
    if proof.complete:
        yield f"proved     all {plural(len(proof.outputs), 'output')} can be built in it offline"
        return
    lacks = "these would have to be fetched" if proof.problem is None else "it cannot be evaluated"
    yield f"proved     INCOMPLETE: {lacks}:"
    yield from (f"  {missing}" for missing in proof.missing)
    yield proof.remedy


def pushed_json(pushed: Pushed, proof: Proof | None) -> None:
    """Print an image in a registry as one JSON object."""
    build_json(pushed.built, pushed.reference, proof, tags=list(pushed.tags), sent=pushed.sent)


def print_pushed(pushed: Pushed, proof: Proof | None) -> None:
    """Print an image in a registry: its tiers, names and tags, and what had to be sent."""
    _print_tiers(pushed.built)
    lines = [
        "",
        *_names(pushed.built, pushed.reference),
        *(f"tag        {tag}" for tag in pushed.tags),
        f"sent       {human_size(pushed.sent)}",
        *_proof_lines(proof),
        *_licence_lines(pushed.built.plan.spec),
    ]
    say_lines(lines)


def print_there(
    fetched: Fetched, evaluated: Evaluated, target: Reference, *, as_json: bool
) -> None:
    """Say that the registry has the image of this recipe already: nothing was built."""
    from nix_seed.formats.oci.manifest import ANNOTATION_NAR_HASH, ANNOTATION_TIER, Manifest

    digest = fetched.descriptor.digest
    reference = str(target.at(digest))
    if not as_json:
        say(f"nothing to build: the image of this recipe is there\n\nimage      {reference}")
        say(f"digest     {digest}\ninput key  {evaluated.input_key}")
        return
    manifest = Manifest.parse(fetched.body, reference)
    value = {
        "built": False,
        "digest": str(digest),
        "narHash": manifest.annotations.get(ANNOTATION_NAR_HASH),
        "inputKey": evaluated.input_key,
        "reference": reference,
        "system": evaluated.evaluation.recipe.outline.system,
        "sent": 0,
        "layers": [
            {
                "digest": str(layer.digest),
                "size": layer.size,
                "tier": layer.annotations.get(ANNOTATION_TIER),
                "reused": True,
            }
            for layer in manifest.layers
        ],
    }
    say(value, indent=2)
