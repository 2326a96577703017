"""Does a bill of materials describe an image? What both formats say of it, read back and compared.

Only what the image itself settles is compared: its digest, its store paths, their NAR hashes and
what they refer to. Licences and derivations are a flake's word, and are not checked here.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from nix_seed.core import canonical_json
from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.sbom.rules.sbom import PREFIX, Sbom

_PATH, _HASH = PREFIX + "store-path", PREFIX + "nar-sha256"


@dataclass(frozen=True, slots=True)
class _Said:
    """The image's digest in hex, and by store path its NAR hash in hex and its references."""

    image: str
    paths: Mapping[str, tuple[str, frozenset[str]]]
    parts: int


def check_describes(
    text: bytes, form: Literal["cyclonedx", "spdx"], sbom: Sbom, place: str
) -> None:
    """Raise ``CheckedFalse`` unless *text*, found at *place*, describes the image as *sbom* does.

    What it says besides, of licences and derivations, may differ.
    """
    try:
        value = canonical_json.loads(text, what=place)
        said = _READERS[form](value)
    except InputError as error:
        raise CheckedFalse(error.message) from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise CheckedFalse(
            f"{place} is not a bill of materials as nix-seed writes it ({error!r})"
        ) from error
    if said.image != sbom.image.hex:
        raise CheckedFalse(f"{place} is of the image sha256:{said.image}, not of {sbom.image}")
    expected = _expected(sbom)
    wrong = sorted(
        path
        for path in expected.keys() | said.paths.keys()
        if expected.get(path) != said.paths.get(path)
    )
    if wrong:
        raise CheckedFalse(
            f"{place} says of {len(wrong)} store paths what the image does not, first {wrong[0]}"
        )
    if said.parts != len(expected):
        raise CheckedFalse(f"{place} lists {said.parts} parts; the image has {len(expected)}")


def _expected(sbom: Sbom) -> dict[str, tuple[str, frozenset[str]]]:
    return {
        str(item.path): (
            "" if item.nar_hash is None else item.nar_hash.hex,
            frozenset(map(str, item.references)),
        )
        for item in sbom.components
    }


def _read_cyclonedx(value: Any) -> _Said:
    image = value["metadata"]["component"]
    depends = {item["ref"]: item.get("dependsOn", ()) for item in value["dependencies"]}
    paths = {}
    for item in value["components"]:
        said = {each["name"]: each["value"] for each in item["properties"]}
        paths[item["bom-ref"]] = (said.get(_HASH, ""), frozenset(depends[item["bom-ref"]]))
        if item["bom-ref"] != said[_PATH]:
            raise ValueError(f"{item['bom-ref']} is called {said[_PATH]}")
    return _Said(image["hashes"][0]["content"], paths, len(value["components"]))


def _read_spdx(value: Any) -> _Said:
    named: dict[str, Mapping[str, Any]] = {}
    image, layers = "", 0
    for item in value["packages"]:
        said = json.loads(item["annotations"][0]["comment"])
        if item["SPDXID"] == "SPDXRef-image":
            image = item["checksums"][0]["checksumValue"]
        elif _PATH in said:
            named[item["SPDXID"]] = said
        else:
            layers += 1
    depends = _depends(value["relationships"])
    paths = {
        said[_PATH]: (
            said.get(_HASH, ""),
            frozenset(named[other][_PATH] for other in depends.get(identity, ())),
        )
        for identity, said in named.items()
    }
    return _Said(image, paths, len(value["packages"]) - layers - 1)


def _depends(relationships: Iterable[Mapping[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for item in relationships:
        if item["relationshipType"] == "DEPENDS_ON":
            found.setdefault(item["spdxElementId"], []).append(item["relatedSpdxElement"])
    return found


_READERS: Mapping[str, Callable[[Any], _Said]] = {
    "cyclonedx": _read_cyclonedx,
    "spdx": _read_spdx,
}
