"""``nix-seed sbom``, and which bills of materials publishing attaches."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from nix_seed.cli import options as shared
from nix_seed.cli.command import FILE, argument, option, progress, seed_command
from nix_seed.cli.lazily import lazily
from nix_seed.cli.say import manner, say
from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError, NixSeedError
from nix_seed.core.events import Stage, tell
from nix_seed.core.files import cache_directory, write_output
from nix_seed.core.processes import current_system
from nix_seed.formats.oci.reference import LayoutReference

with lazily():
    from nix_seed.flake import evaluate, nix
    from nix_seed.image import request as requests
    from nix_seed.image.read import spec as images
    from nix_seed.registry import open as registries
    from nix_seed.sbom import sbom


_FORMATS: tuple[sbom.Format, ...] = ("cyclonedx", "spdx")

sbom_option = option(
    "--sbom",
    "Attach a bill of materials in this format; again for more [all].",
    into="sboms",
    multiple=True,
    type=click.Choice([*_FORMATS, "none"]),
)


def sboms_of(given: Sequence[str]) -> tuple[sbom.Format, ...] | None:
    """Return the formats that ``--sbom`` names; None where it is not given."""
    if "none" in given and len(set(given)) > 1:
        raise InputError("--sbom none goes with no other format")
    return tuple(form for form in _FORMATS if form in given) if given else None


@seed_command("sbom")
@argument("what", "[FLAKE|IMAGE]", default=".")
@option(
    "--flake FLAKE", "The flake that IMAGE was built from: adds licences, derivations and sources."
)
@option(
    "--format",
    "CycloneDX 1.6 or SPDX 2.3, in JSON.",
    into="form",
    type=click.Choice(_FORMATS),
    default="cyclonedx",
)
@option("-o, --output FILE", "Write it there [standard output].", type=FILE)
@option("--attached", "The one attached to IMAGE, verified against it.")
@option("--attached-digest DIGEST", "Of several that are, the one meant.")
@shared.made_options
@shared.store_option
@shared.registry_options
@shared.json_option
def command(what: str, form: sbom.Format, output: Path | None, **options: Any) -> None:
    """Write what is in the image built here of FLAKE, or in IMAGE: every store path, with its hash.

    What is not known is left out: licences are a flake's to tell. The same image and flake give the
    same bytes, on any machine.
    """
    reference = shared.image_named(what)
    _check(what, reference is None, options)
    with progress(quiet=False):
        if reference is None:
            text = _of_flake(what, form, options)
        else:
            text = _of_image(_opened(reference, options), form, options)
    if output is None:
        sys.stdout.buffer.write(text)
        return
    write_output(output, text)
    if manner().json:
        say({"output": str(output), "format": form, "size": len(text)})


def _check(what: str, is_flake: bool, options: dict[str, Any]) -> None:
    """Refuse options that mean nothing together."""
    attached = options["attached"] or options["attached_digest"]
    if is_flake and (attached or options["flake"]):
        named = "--flake" if options["flake"] else "--attached"
        raise InputError(
            f"{what} is a flake, and {named} is about an image",
            hint="name the image, as in: nix-seed sbom ghcr.io/owner/repo:tag " + named,
        )
    if attached and options["flake"]:
        raise InputError(
            "--attached reads what is there, --flake computes it anew", hint="choose one of them"
        )


def _opened(reference: registries.AnyReference, options: dict[str, Any]) -> images.SeedImage:
    return images.open_seed_image(
        shared.stores_of(options), reference, options["system"] or current_system()
    )


def _of_image(image: images.SeedImage, form: sbom.Format, options: dict[str, Any]) -> bytes:
    if options["attached"] or options["attached_digest"]:
        wanted = options["attached_digest"]
        return sbom.find_attached(image, form, Digest.parse(wanted) if wanted else None).text
    if options["flake"] is None:
        text = sbom.write_sbom(sbom.sbom_of(image), form)
        _offer(image, form)
        return text
    flake, attr = shared.flake_and_attr(options["flake"], options["attr"])
    nix = shared.nix_of(options)
    tell(Stage("evaluate", f"evaluating {flake}"))
    evaluation = evaluate.evaluate_flake(nix, flake, image.spec.choice(attr))
    return _with_licences(image, nix, evaluation, attr, form)


def _offer(image: images.SeedImage, form: sbom.Format) -> None:
    """Tell of what is attached, which may say more than the image itself can."""
    try:
        count = len(sbom.list_attached(image, form))
    except NixSeedError:
        return  # this was only an offer
    if count:
        say(
            f"note: {image.name} has {count} attached, with what a flake says of licences and"
            " sources: --attached",
            err=True,
        )


def _of_flake(what: str, form: sbom.Format, options: dict[str, Any]) -> bytes:
    flake, attr = shared.flake_and_attr(what, options["attr"])
    request = requests.Request(flake, shared.choice_of(options, attr))
    nix = shared.nix_of(options)
    evaluated = requests.evaluate_request(nix, request)
    kept = LayoutReference(str(cache_directory() / "images"), tag=evaluated.input_key)
    try:
        image = _opened(kept, options)
    except InputError as error:
        raise InputError(
            f"no {options['kind']} image of {what} has been built here",
            hint=f"build it first: nix-seed build {what}; or name where it is: nix-seed sbom IMAGE"
            f" --flake {what}",
        ) from error
    return _with_licences(image, nix, evaluated.evaluation, attr, form)


def _with_licences(
    image: images.SeedImage,
    nix: nix.Nix,
    evaluation: evaluate.Evaluation,
    attr: str | None,
    form: sbom.Format,
) -> bytes:
    licences = sbom.licences_of_image(nix, image, evaluation, attr)
    return sbom.write_sbom(sbom.sbom_of(image, nix, licences), form)
