"""``nix-seed index``."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from nix_seed.cli.command import argument, option, progress, seed_command
from nix_seed.cli.options import (
    exclude_option,
    jobs_option,
    json_option,
    registry_options,
    stores_of,
)
from nix_seed.cli.say import answer
from nix_seed.formats.oci.reference import parse_reference


@seed_command("index")
@argument("target", "REF")
@argument("more", "[IMAGE]...", nargs=-1)
@option(
    "--system-images IMAGE",
    "One system's image; the same as naming it after REF.",
    into="images",
    multiple=True,
)
@option(
    "--system SYSTEM",
    "A system the index must have; nothing is published while one lacks.",
    into="systems",
    multiple=True,
)
@option(
    "--flake FLAKE",
    "The index must have every system of FLAKE; without IMAGEs, those of its recipe.",
)
@exclude_option
@option("--tag TAG", "A further tag, moved last.", into="tags", multiple=True)
@jobs_option
@registry_options
@json_option
def command(**options: Any) -> None:
    """Publish at REF an index of IMAGEs, one for each system.

    Each image says itself for which system it is. Images that lie elsewhere are copied first; the
    tags are moved when everything is there. With --flake and no IMAGE, the images are those that
    `build --push` tagged by input key in REF's repository.
    """
    from nix_seed.flake.checkout import about_commit
    from nix_seed.formats.oci.manifest import UNSAID
    from nix_seed.image.index import IndexPlan, build_index
    from nix_seed.sbom.sbom import listed_licences

    target = parse_reference(options["target"])
    images = [parse_reference(image) for image in (*options["images"], *options["more"])]
    systems = list(options["systems"])
    with progress():
        if options["flake"] is not None:
            keyed = _of_flake(options["flake"], options["exclude"], evaluate=not images)
            systems += keyed
            images += [target.at(tag) for tag in keyed.values() if tag is not None]
        stores = stores_of(options)
        about = UNSAID
        if options["flake"] is not None and Path(options["flake"]).is_dir():
            about = about_commit(Path(options["flake"]))
        about = replace(about, licenses=listed_licences(stores, images))
        plan = IndexPlan(systems, options["tags"], about)
        done = build_index(stores, target, images, plan)
    reference = str(target.at(done.descriptor.digest))
    members = {member.system: str(member.descriptor.digest) for member in done.members}
    value = {"reference": reference, "digest": str(done.descriptor.digest)}
    lines = [reference, f"tags: {', '.join(done.tags)}"]
    lines += [f"  {system:16} {digest}" for system, digest in members.items()]
    answer(value | {"tags": list(done.tags), "systems": members}, lines)


def _of_flake(flake: str, exclude: tuple[str, ...], *, evaluate: bool) -> dict[str, str | None]:
    """Return the flake's systems, each with the tag of its seed if *evaluate* asks for those."""
    from nix_seed.flake.evaluate import declared_systems
    from nix_seed.flake.nix import Nix
    from nix_seed.flake.rules.choice import FlakeChoice
    from nix_seed.image.request import Request, evaluate_request, tags_of

    nix = Nix()
    found: dict[str, str | None] = dict.fromkeys(declared_systems(nix, flake))
    for system in found if evaluate else ():
        request = Request(flake, FlakeChoice(system=system, exclude=exclude))
        found[system] = tags_of(evaluate_request(nix, request))[0]
    return found
