"""``nix-seed licences``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from nix_seed.cli import options as shared
from nix_seed.cli.command import progress, seed_command
from nix_seed.cli.say import answer, columns, manner, say, table
from nix_seed.core.processes import current_system
from nix_seed.core.safe_text import safe_line
from nix_seed.core.words import members
from nix_seed.formats.nix.store_path import StorePath

if TYPE_CHECKING:
    from nix_seed.image.rules.spec import Spec
    from nix_seed.licences.licences import Licences
    from nix_seed.licences.rules.judge import Judged
    from nix_seed.registry.open import AnyReference

_ORDER = ("withheld", "unknown", "redistributable")


@seed_command("licences")
@shared.image_options
@shared.registry_options
@shared.json_option
def command(**options: Any) -> None:
    """Show under which licence everything in FLAKE's image is, and what is withheld.

    Of an image, in a registry or oci:DIR[:TAG], what the bill of materials attached to it says;
    without one only what was withheld or is unknown, which the image itself tells.
    """
    from nix_seed.image.plan import licences_of_flake

    reference = shared.image_named(options["flake"])
    if reference is not None:
        _of_image(reference, options)
        return
    nix, request = shared.request_of(options)
    with progress():
        licences = licences_of_flake(nix, request)
    found = licences.judgement
    value = {
        "paths": [_path_json(item) for item in _sorted(found.paths)],
        "contradictions": [
            members(item, "path", "licence", source="fetched") for item in found.conflicts
        ],
        "problem": licences.problem,
    }
    answer(value, _lines(licences), indent=2)


def _of_image(reference: AnyReference, options: dict[str, Any]) -> None:
    from nix_seed.image.read.spec import open_seed_image
    from nix_seed.sbom.sbom import attached_licences

    system = options["system"] or current_system()
    image = open_seed_image(shared.stores_of(options), reference, system)
    told, trouble = attached_licences(image)
    if trouble is not None:
        say(f"note: {trouble.message}", err=True)
    value: dict[str, Any] = {
        "withheld": _withheld_json(image.spec),
        "unknown": [
            {"path": str(item.path), "licence": item.licence or None} for item in image.spec.unknown
        ],
    }
    if told:
        value["paths"] = [_path_json(item) for item in _sorted(told)]
    answer(value, _table(told) if told else _withheld_lines(image.spec), indent=2)
    if told and not manner().json:
        say(
            "as the attached bill of materials says; computed again: nix-seed sbom"
            f" {options['flake']} --flake FLAKE",
            err=True,
        )


def _sorted(paths: Mapping[StorePath, Judged]) -> list[Judged]:
    rank = {status: number for number, status in enumerate(_ORDER)}
    return sorted(
        paths.values(), key=lambda item: (rank[item.licence.status], item.path.name, item.path)
    )


def _table(paths: Mapping[StorePath, Judged]) -> Iterator[str]:
    items = _sorted(paths)
    rows = [[i.licence.status, i.path.name, i.licence.name or "none stated"] for i in items]
    yield from table(["status", "name", "licence"], rows, width=columns())
    counts = (f"{sum(i.licence.status == s for i in items)} {s}" for s in _ORDER)
    yield ", ".join(counts)


def _lines(licences: Licences) -> Iterator[str]:
    yield from _table(licences.judgement.paths)
    for conflict in licences.judgement.conflicts:
        yield f"contradiction: {conflict.path.name} is built from {conflict.fetched.name}," + (
            f" which is withheld ({safe_line(conflict.licence)})"
        )
    if licences.problem:
        yield f"not all licences could be read: {safe_line(licences.problem.splitlines()[-1])}"


def _path_json(item: Judged) -> dict[str, str | None]:
    found = members(item, "path", "derivation", status="licence.status")
    return found | {"licence": item.licence.name or None, "url": item.url or None}


def _withheld_json(spec: Spec) -> list[dict[str, str | None]]:
    return [
        members(item, "path", "licence")
        | {"derivation": item.derivation or None, "url": item.url or None}
        for item in spec.withheld
    ]


def _withheld_lines(spec: Spec) -> Iterator[str]:
    if not spec.withheld:
        yield "nothing was withheld"
    for item in spec.withheld:
        source = f", from {safe_line(item.url)}" if item.url else ""
        yield f"withheld  {item.name}  {safe_line(item.licence)}{source}"
    for unknown in spec.unknown:
        yield f"unknown   {unknown.path.name}  {safe_line(unknown.licence or 'none stated')}"
