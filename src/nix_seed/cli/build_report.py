"""What ``nix-seed build`` says of an image: a table for people, an object for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from nix_seed.cli.report import human_size, plural

if TYPE_CHECKING:
    from nix_seed.flows.build import Built, BuiltLayer
    from nix_seed.flows.prove import Proof

__all__ = ["build_json", "print_build"]


def build_json(built: Built, reference: str, proof: Proof | None) -> None:
    """Print the image as one JSON object (sizes in bytes)."""
    value: dict[str, Any] = {
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
    click.echo(json.dumps(value, indent=2))


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
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("tier")
    for title in ("layers", "store paths", "unpacked", "compressed", "reused"):
        table.add_column(title, justify="right")
    for tier, layers in groupby(built.layers, key=lambda layer: layer.tier):
        table.add_row(tier, *_cells(list(layers)))
    table.add_section()
    table.add_row("together", *_cells(built.layers), style="bold")
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    spec = built.plan.spec
    console.print(f"\nimage      {reference}", markup=False)
    console.print(f"digest     {built.digest}", markup=False)
    console.print(f"narHash    {spec.nar_hash}", markup=False)
    console.print(f"input key  {built.plan.input_key}", markup=False)
    for line in _proof_lines(proof):
        console.print(line, markup=False)
    if spec.kind == "seed" and reference.startswith("oci:"):
        console.print(
            f"\nbuild in it:  nix-seed run --image {reference} -- nix build", markup=False
        )
    elif reference.startswith("oci:"):
        console.print(f"\nstart it:  podman run --rm {reference}", markup=False)


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
