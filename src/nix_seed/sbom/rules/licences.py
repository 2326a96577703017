"""The licences that a bill of materials states, read back, as if they had been judged here."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, cast, get_args

from nix_seed.core import canonical_json
from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.flake.rules.licence import Licence, Status
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.licences.rules.judge import Judged
from nix_seed.sbom.rules.sbom import PREFIX

_NOTHING = "NOASSERTION"


def read_licences(
    text: bytes, form: Literal["cyclonedx", "spdx"], place: str
) -> Mapping[StorePath, Judged]:
    """Return what *text*, found at *place*, says of each store path's licence.

    It is a publisher's word. Raises ``CheckedFalse`` for a text that nix-seed did not write.
    """
    try:
        value = canonical_json.loads(text, what=place)
        return {item.path: item for item in _READERS[form](value)}
    except (InputError, KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise CheckedFalse(
            f"{place} is not a bill of materials as nix-seed writes it ({error!r})"
        ) from error


def _judged(said: Mapping[str, Any], declared: str, concluded: str, url: str) -> Judged:
    status = said.get(PREFIX + "licence-status", "unknown")
    if status not in get_args(Status):
        raise ValueError(f"{status!r} is no status")
    return Judged(
        path=StorePath.parse(said[PREFIX + "store-path"]),
        licence=Licence(declared or concluded, cast(Status, status)),
        derivation=_derivation(said.get(PREFIX + "derivation", "")),
        url=url or said.get(PREFIX + "url", ""),
        declared=declared,
    )


def _derivation(text: str) -> StorePath | None:
    """Read the derivation's path, if it is one: a spec says of what it withholds what it likes."""
    try:
        return StorePath.parse(text)
    except InputError:
        return None


def _read_cyclonedx(value: Any) -> Iterator[Judged]:
    for item in value["components"]:
        said = {each["name"]: each["value"] for each in item["properties"]}
        names = {"declared": "", "concluded": ""}
        for each in item.get("licenses", ()):
            licence = each.get("license", each)
            name = licence.get("id") or licence.get("name") or licence["expression"]
            names[licence["acknowledgement"]] = name
        links = [each["url"] for each in item.get("externalReferences", ())]
        yield _judged(said, **names, url=links[0] if links else "")


def _read_spdx(value: Any) -> Iterator[Judged]:
    named = {
        each["licenseId"]: each["name"] for each in value.get("hasExtractedLicensingInfos", ())
    }
    named[_NOTHING] = ""
    for item in value["packages"]:
        said = json.loads(item["annotations"][0]["comment"])
        if PREFIX + "store-path" in said:
            declared, concluded = item["licenseDeclared"], item["licenseConcluded"]
            url = item.get("sourceInfo", "").removeprefix("fetched from ") or item.get("homepage")
            yield _judged(
                said,
                named.get(declared, declared),
                named.get(concluded, concluded),
                url or "",
            )


_READERS: Mapping[str, Callable[[Any], Iterator[Judged]]] = {
    "cyclonedx": _read_cyclonedx,
    "spdx": _read_spdx,
}
