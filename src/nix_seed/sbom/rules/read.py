"""A bill of materials read back: does it describe an image, and what does it say of licences?

Held against the image is only what the image itself settles: its digest, its store paths, their NAR
hashes and what they refer to. Licences and derivations are a flake's word, and a publisher's.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple, cast, get_args

from nix_seed.core import canonical_json
from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.flake.rules.licence import Licence, Status
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.licences.rules.judge import Judged
from nix_seed.sbom.rules.sbom import PREFIX, Sbom

_PATH, _HASH = PREFIX + "store-path", PREFIX + "nar-sha256"


class _Part(NamedTuple):
    """One store path: what is *said* of it by name, what it refers to, licences and a URL."""

    said: Mapping[str, Any]
    references: frozenset[str]
    declared: str
    concluded: str
    url: str


class _Bill(NamedTuple):
    """The *image*'s digest in hex, and its *parts*."""

    image: str
    parts: tuple[_Part, ...]


def check_describes(
    text: bytes, form: Literal["cyclonedx", "spdx"], sbom: Sbom, place: str
) -> None:
    """Raise ``CheckedFalse`` unless *text*, found at *place*, describes the image as *sbom* does.

    What it says besides, of licences and derivations, may differ.
    """
    bill = _read(text, form, place)
    if bill.image != sbom.image.hex:
        raise CheckedFalse(f"{place} is of the image sha256:{bill.image}, not of {sbom.image}")
    found = {each.said[_PATH]: (each.said.get(_HASH, ""), each.references) for each in bill.parts}
    expected = {
        str(item.path): (
            "" if item.nar_hash is None else item.nar_hash.hex,
            frozenset(map(str, item.references)),
        )
        for item in sbom.components
    }
    paths = expected.keys() | found.keys()
    wrong = sorted(path for path in paths if expected.get(path) != found.get(path))
    if wrong:
        raise CheckedFalse(
            f"{place} says of {len(wrong)} store paths what the image does not, first {wrong[0]}"
        )
    if (number := len(bill.parts)) != len(expected):
        raise CheckedFalse(f"{place} lists {number} parts; the image has {len(expected)}")


def read_licences(
    text: bytes, form: Literal["cyclonedx", "spdx"], place: str
) -> Mapping[StorePath, Judged]:
    """Return what *text*, found at *place*, says of each store path's licence.

    It is a publisher's word. Raises ``CheckedFalse`` for a text that nix-seed did not write.
    """
    bill = _read(text, form, place)
    try:
        return {item.path: item for item in map(_judged, bill.parts)}
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise _strange(place, error) from error


def _judged(part: _Part) -> Judged:
    said = part.said
    status = said.get(PREFIX + "licence-status", "unknown")
    if status not in get_args(Status):
        raise ValueError(f"{status!r} is no status")
    return Judged(
        path=StorePath.parse(said[_PATH]),
        licence=Licence(part.declared or part.concluded, cast(Status, status)),
        derivation=_derivation(said.get(PREFIX + "derivation", "")),
        url=part.url or said.get(PREFIX + "url", ""),
        declared=part.declared,
    )


def _derivation(text: str) -> StorePath | None:
    """Read the derivation's path, if it is one: a spec says of what it withholds what it likes."""
    try:
        return StorePath.parse(text)
    except InputError:
        return None


def _read(text: bytes, form: str, place: str) -> _Bill:
    try:
        bill = _READERS[form](canonical_json.loads(text, label=place))
        if not all(isinstance(each.said[_PATH], str) for each in bill.parts):
            raise TypeError("a store path is no string")
        return bill
    except InputError as error:
        raise CheckedFalse(error.message) from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise _strange(place, error) from error


def _strange(place: str, error: Exception) -> CheckedFalse:
    return CheckedFalse(f"{place} is not a bill of materials as nix-seed writes it ({error!r})")


def _read_cyclonedx(value: Any) -> _Bill:
    depends = {item["ref"]: item.get("dependsOn", ()) for item in value["dependencies"]}
    parts = []
    for item in value["components"]:
        said = {each["name"]: each["value"] for each in item["properties"]}
        if item["bom-ref"] != said[_PATH]:
            raise ValueError(f"{item['bom-ref']} is called {said[_PATH]}")
        names = {"declared": "", "concluded": ""}
        for each in item.get("licenses", ()):
            licence = each.get("license", each)
            name = licence.get("id") or licence.get("name") or licence["expression"]
            names[licence["acknowledgement"]] = name
        links = [each["url"] for each in item.get("externalReferences", ())]
        references = frozenset(depends[item["bom-ref"]])
        parts.append(_Part(said, references, **names, url=links[0] if links else ""))
    return _Bill(value["metadata"]["component"]["hashes"][0]["content"], tuple(parts))


def _read_spdx(value: Any) -> _Bill:
    names = {
        each["licenseId"]: each["name"] for each in value.get("hasExtractedLicensingInfos", ())
    }
    names["NOASSERTION"] = ""
    image, listed = "", []
    for item in value["packages"]:
        said = json.loads(item["annotations"][0]["comment"])
        if item["SPDXID"] == "SPDXRef-image":
            image = item["checksums"][0]["checksumValue"]
        elif _PATH in said:
            listed.append((item, said))
    paths = {item["SPDXID"]: said[_PATH] for item, said in listed}
    depends = _depends(value["relationships"])
    parts = []
    for item, said in listed:
        references = frozenset(paths[other] for other in depends.get(item["SPDXID"], ()))
        licences = [item[key] for key in ("licenseDeclared", "licenseConcluded")]
        declared, concluded = (names.get(each, each) for each in licences)
        url = item.get("sourceInfo", "").removeprefix("fetched from ") or item.get("homepage", "")
        parts.append(_Part(said, references, declared, concluded, url))
    return _Bill(image, tuple(parts))


def _depends(relationships: Iterable[Mapping[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for item in relationships:
        if item["relationshipType"] == "DEPENDS_ON":
            found.setdefault(item["spdxElementId"], []).append(item["relatedSpdxElement"])
    return found


_READERS: Mapping[str, Callable[[Any], _Bill]] = {
    "cyclonedx": _read_cyclonedx,
    "spdx": _read_spdx,
}
