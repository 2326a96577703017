"""``nix-seed build``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nix_seed.cli.command import seed_command
from nix_seed.cli.image.build_steps import assembly, base_of, prove, push
from nix_seed.cli.options import (
    cache_directory,
    image_options,
    json_option,
    registry_options,
    request_of,
)

if TYPE_CHECKING:
    from nix_seed.image.build import Destination
    from nix_seed.image.push import Pushed


@seed_command("build")
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
@click.option("--push", metavar="REF", help="Write the image straight into a registry.")
@click.option("--untagged", is_flag=True, hidden=True)
@click.option("--no-lock", is_flag=True, help="Do not take the flake's seed.lock for the base.")
@registry_options
@json_option
def command(as_json: bool, **options: Any) -> Pushed | None:
    """Turn a flake into an image: a seed to build in, or a run image to ship.

    FLAKE is a directory or any flake reference, such as github:owner/repo; the flake needs no
    changes. If it has the attribute NAME (`seed`, or `run` for --kind run), that wins.
    """
    from nix_seed.cli.image.build_report import build_json, print_build
    from nix_seed.cli.progress import progress
    from nix_seed.image.build import check_destination, store_image
    from nix_seed.image.plan import plan_image
    from nix_seed.image.request import evaluate_request

    if options["push"] is not None:
        return push(as_json, options)
    nix, request = request_of(options)
    with progress(quiet=as_json) as show:
        evaluated = evaluate_request(nix, request, show)
        name = evaluated.evaluation.recipe.outline.name
        destination = _destination(options, name, evaluated.input_key)
        check_destination(destination)
        base = base_of(options, nix, evaluated)
        plan = plan_image(nix, request, base, show, evaluated)
        how = assembly(options, nix, show)
        built = how.assemble(plan)
        reference = store_image(built, how.cache, destination, show)
        proof = prove(nix, built, destination, options["prove"], show)
    if as_json:
        build_json(built, reference, proof)
    else:
        print_build(built, reference, proof, cached=options["output"] is None)
    if proof is not None and not proof.complete:
        click.get_current_context().exit(1)
    return None


def _destination(options: dict[str, Any], name: str, key: str) -> Destination:
    from nix_seed.image.build import Destination

    path = options["output"]
    if path is not None:
        return Destination(options["format_"], path, options["tag"] or name)
    if options["format_"] != "oci":
        suffix = options["format_"].removesuffix("-archive")
        return Destination(options["format_"], Path(f"{name}.{suffix}.tar"), options["tag"] or name)
    return Destination("oci", cache_directory() / "images", options["tag"] or key)
