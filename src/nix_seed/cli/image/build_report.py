"""What ``nix-seed build`` says of an image: a table for people, an object for programs."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING, Any

from nix_seed.cli.say import say
from nix_seed.core.safe_text import safe_line, safe_text
from nix_seed.core.words import human_size, plural

if TYPE_CHECKING:
    from rich.table import Table

    from nix_seed.formats.oci.reference import Reference
    from nix_seed.image.build import Built, BuiltLayer
    from nix_seed.image.plan import Evaluated
    from nix_seed.image.push import Pushed
    from nix_seed.registry.store import Fetched
    from nix_seed.use.prove import Proof


def build_json(built: Built, reference: str, proof: Proof | None, **more: Any) -> None:
    """Print the image as one JSON object (sizes in bytes), with *more* members."""
    value: dict[str, Any] = {
        "built": True,
        "digest": str(built.digest),
        "narHash": str(built.plan.spec.nar_hash),
        "inputKey": built.plan.input_key,
        "reference": reference,
        "kind": built.plan.spec.kind,
        "name": built.plan.spec.name,
        "system": built.plan.spec.system,
        "size": sum(layer.layer.descriptor.size for layer in built.layers),
        "layers": [_layer_json(layer) for layer in built.layers],
    }
    if proof is not None:
        value["proof"] = proof.to_json()
    say(value | more, indent=2)


def _layer_json(layer: BuiltLayer) -> dict[str, Any]:
    return {
        "digest": str(layer.layer.descriptor.digest),
        "diffId": str(layer.layer.diff_id),
        "size": layer.layer.descriptor.size,
        "tier": layer.tier,
        "paths": list(layer.paths),
        "reused": layer.reused,
    }


def print_build(built: Built, reference: str, proof: Proof | None, *, cached: bool) -> None:
    """Print the image: a table of tiers, what names it, and what to do with it.

    *cached*: it lies in the cache, where ``nix-seed run`` looks for it by itself.
    """
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    console.print(_table(built))
    spec = built.plan.spec
    console.print(safe_text("\n" + "\n".join(_names(built, reference))), markup=False)
    for line in _proof_lines(proof):
        console.print(safe_text(line), markup=False)
    if spec.kind == "seed" and reference.startswith("oci:"):
        named = "" if cached else f"--image {reference} "
        console.print(safe_text(f"\nbuild in it:  nix-seed run {named}-- nix build"), markup=False)
    elif reference.startswith("oci:"):
        console.print(safe_text(f"\nstart it:  podman run --rm {reference}"), markup=False)


def _table(built: Built) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("tier")
    for title in ("layers", "store paths", "unpacked", "compressed", "reused"):
        table.add_column(title, justify="right")
    for tier, layers in groupby(built.layers, key=lambda layer: layer.tier):
        table.add_row(escape(safe_line(tier)), *_cells(list(layers)))
    table.add_section()
    table.add_row("together", *_cells(built.layers), style="bold")
    return table


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
    yield "proved     INCOMPLETE: these would have to be fetched:"
    yield from (f"  {missing}" for missing in proof.missing)
    yield "add them with mkSeed { contents.packages = [ … ]; }"


def pushed_json(pushed: Pushed, proof: Proof | None) -> None:
    """Print an image in a registry as one JSON object."""
    build_json(pushed.built, pushed.reference, proof, tags=list(pushed.tags), sent=pushed.sent)


def print_pushed(pushed: Pushed, proof: Proof | None) -> None:
    """Print an image in a registry: its tiers, names and tags, and what had to be sent."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    console.print(_table(pushed.built))
    lines = [
        "",
        *_names(pushed.built, pushed.reference),
        *(f"tag        {tag}" for tag in pushed.tags),
        f"sent       {human_size(pushed.sent)}",
        *_proof_lines(proof),
    ]
    console.print(safe_text("\n".join(lines)), markup=False)


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
