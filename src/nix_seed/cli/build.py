"""``nix-seed build``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nix_seed.cli.options import (
    cache_directory,
    image_options,
    json_option,
    read_base_option,
    request_of,
)

if TYPE_CHECKING:
    from nix_seed.clients.nix import Nix
    from nix_seed.flows.build import Built, Destination
    from nix_seed.flows.prove import Proof

__all__ = ["command"]


@click.command("build", short_help="Turn a flake into an image.")
@image_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Image layout's directory, or archive's file [the cache].",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["oci", "oci-archive", "docker-archive"]),
    default="oci",
    show_default=True,
    help="A directory, or one file for other tools.",
)
@click.option("--tag", metavar="TAG", help="The image's name at its destination [its own].")
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Layers written at once [processors].",
)
@click.option("--no-reuse", is_flag=True, help="Write every layer anew, whatever the cache holds.")
@click.option(
    "--prove/--no-prove",
    default=None,
    help="Plan every output inside the seed, with no network [on in CI].",
)
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Turn a flake into an image: a seed to build in, or a run image to ship.

    FLAKE is a directory or any flake reference, such as github:owner/repo; the flake needs no
    changes. If it has the attribute NAME (`seed`, or `run` for --kind run), that wins.
    """
    from nix_seed.cli.build_report import build_json, print_build
    from nix_seed.cli.progress import progress
    from nix_seed.clients.layer_cache import LayerCache
    from nix_seed.flows.build import assemble_image, check_destination, store_image
    from nix_seed.flows.plan import evaluate_request, plan_image

    nix, request = request_of(options)
    base = read_base_option(options["base"])
    cache = LayerCache(cache_directory())
    with progress(quiet=as_json) as show:
        evaluated = evaluate_request(nix, request, show)
        outline = evaluated.evaluation.recipe.outline
        destination = _destination(options, outline.name, evaluated.input_key)
        check_destination(destination)
        plan = plan_image(nix, request, base, show, evaluated)
        built = assemble_image(
            nix,
            plan,
            cache,
            threads=options["threads"],
            reuse=not options["no_reuse"],
            on_event=show,
        )
        reference = store_image(built, cache, destination, show)
        proof = _prove(nix, built, destination, options["prove"], show)
    if as_json:
        build_json(built, reference, proof)
    else:
        print_build(built, reference, proof, cached=options["output"] is None)
    if proof is not None and not proof.complete:
        click.get_current_context().exit(1)


def _destination(options: dict[str, Any], name: str, key: str) -> Destination:
    from nix_seed.flows.build import Destination

    path = options["output"]
    if path is not None:
        return Destination(options["format_"], path, options["tag"] or name)
    if options["format_"] != "oci":
        suffix = options["format_"].removesuffix("-archive")
        return Destination(options["format_"], Path(f"{name}.{suffix}.tar"), options["tag"] or name)
    return Destination("oci", cache_directory() / "images", options["tag"] or key)


def _prove(
    nix: Nix, built: Built, destination: Destination, wanted: bool | None, show: Any
) -> Proof | None:
    """Prove a seed complete if asked to, or, unasked, in CI."""
    in_ci = os.environ.get("CI", "") not in ("", "0", "false")
    if not (in_ci if wanted is None else wanted) or built.plan.spec.kind != "seed":
        return None
    from nix_seed.flows.prove import prove_built

    return prove_built(nix, built, destination, cache_directory(), show)
