"""``nix-seed licences``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from nix_seed.cli.options import image_named, image_options, json_option, request_of
from nix_seed.cli.registry_options import registry_options, stores_of

if TYPE_CHECKING:
    from nix_seed.flows.licences import Licences
    from nix_seed.rules.licence_judge import Judged
    from nix_seed.rules.spec import Spec

__all__ = ["command"]

_ORDER = ("withheld", "unknown", "redistributable")


@click.command("licences", short_help="Show the licence of everything in an image.")
@image_options
@registry_options
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Show under which licence everything in FLAKE's image is, and what is withheld.

    Of an image, in a registry or oci:DIR[:TAG], only what was withheld: the rest may be passed on.
    """
    from nix_seed.cli.progress import progress
    from nix_seed.flows.evaluate import current_system
    from nix_seed.flows.plan import licences_of_flake
    from nix_seed.flows.sbom import open_seed_image

    reference = image_named(options["flake"])
    if reference is not None:
        system = options["system"] or current_system()
        spec = open_seed_image(stores_of(options), reference, system).spec
        value = {"withheld": _withheld_json(spec)}
        click.echo(json.dumps(value, indent=2) if as_json else "\n".join(_withheld_lines(spec)))
        return
    nix, request = request_of(options)
    with progress(quiet=as_json) as show:
        licences = licences_of_flake(nix, request, show)
    if as_json:
        click.echo(json.dumps(_json(licences), indent=2))
    else:
        click.echo("\n".join(_lines(licences)))


def _sorted(licences: Licences) -> list[Judged]:
    rank = {status: number for number, status in enumerate(_ORDER)}
    items = licences.judgement.paths.values()
    return sorted(items, key=lambda item: (rank[item.licence.status], item.path.name, item.path))


def _lines(licences: Licences) -> Iterator[str]:
    items = _sorted(licences)
    width = max((len(item.path.name) for item in items), default=0)
    for item in items:
        licence = item.licence.name or "none stated"
        yield f"{item.licence.status:15}  {item.path.name:{width}}  {_harmless(licence)}"
    counts = (f"{sum(i.licence.status == s for i in items)} {s}" for s in _ORDER)
    yield ", ".join(counts)
    for conflict in licences.judgement.conflicts:
        yield f"contradiction: {conflict.path.name} is built from {conflict.fetched.name}," + (
            f" which is withheld ({_harmless(conflict.licence)})"
        )
    if licences.problem:
        yield f"not all licences could be read: {_harmless(licences.problem.splitlines()[-1])}"


def _harmless(text: str) -> str:
    """Keep a flake's own words from steering the terminal."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def _json(licences: Licences) -> dict[str, Any]:
    return {
        "paths": [
            {
                "path": str(item.path),
                "licence": item.licence.name or None,
                "status": item.licence.status,
                "derivation": None if item.derivation is None else str(item.derivation),
                "url": item.url or None,
            }
            for item in _sorted(licences)
        ],
        "contradictions": [
            {"path": str(item.path), "source": str(item.fetched), "licence": item.licence}
            for item in licences.judgement.conflicts
        ],
        "problem": licences.problem,
    }


def _withheld_json(spec: Spec) -> list[dict[str, str | None]]:
    return [
        {
            "path": str(item.path),
            "licence": item.licence,
            "derivation": item.derivation or None,
            "url": item.url or None,
        }
        for item in spec.withheld
    ]


def _withheld_lines(spec: Spec) -> Iterator[str]:
    if not spec.withheld:
        yield "nothing was withheld"
    for item in spec.withheld:
        source = f", from {_harmless(item.url)}" if item.url else ""
        yield f"withheld  {item.name}  {_harmless(item.licence)}{source}"
