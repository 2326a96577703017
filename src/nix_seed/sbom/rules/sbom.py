"""A bill of materials as values: what an image holds, and what is known of each part.

A pure function of the image (its digest, manifest and spec) and of what a flake says of the store
paths; the formats (CycloneDX, SPDX) are written from it and add nothing. What nobody stated is
empty here, and never a guess.

A bill of materials read back: does it describe an image, and what does it say of licences?

Held against the image is only what the image itself settles: its digest, its store paths, their NAR
hashes and what they refer to. Licences and derivations are a flake's word, and a publisher's.
"""

import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple, cast, get_args

from nix_seed.core import canonical_json
from nix_seed.core.digests import Digest, NarHash
from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.core.safe_text import is_web_address
from nix_seed.core.values import dataclass
from nix_seed.flake.rules.licence import Licence, Status, is_licence
from nix_seed.flake.rules.names import Package, image_url, package_url, parse_name
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.formats.oci.manifest import Manifest, platform_of
from nix_seed.image.rules.spec import CONTAINER_TIER, Spec
from nix_seed.licences.rules.judge import Judged, Withheld

PREFIX: Final = "io.nix-seed."
"""Properties that no format has a place for begin like the images' annotations."""

CREATED: Final = "1970-01-01T00:00:01Z"
"""The only time a bill of materials states: the one that the image's configuration states."""

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
# Serial numbers are UUIDs of version 5 (RFC 9562) in this namespace. What changes the bytes of a
# bill of materials that says the same raises the number.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:nix-seed:sbom:v1")


@dataclass(frozen=True, slots=True)
class Origin:
    """What a flake says of a store path.

    *declared* is the licence that ``meta`` states, *concluded* one that follows from others'.
    *status* is whether it may be passed on; *fetched* tells a URL that its source was fetched from
    from a home page.
    """

    package: Package
    derivation: StorePath | None = None
    declared: str = ""
    concluded: str = ""
    status: str = ""
    url: str = ""
    fetched: bool = False


@dataclass(frozen=True, slots=True)
class ListedLayer:
    """A layer of the image: the digest of its blob, and its tier."""

    digest: Digest
    tier: str


@dataclass(frozen=True, slots=True)
class Component:
    """One store path. Of what was withheld there is neither layer nor hash, in bytes no size."""

    path: StorePath
    origin: Origin
    layer: ListedLayer | None = None
    nar_hash: NarHash | None = None
    nar_size: int | None = None
    references: tuple[StorePath, ...] = ()
    inputs: tuple[str, ...] = ()
    derivation: str = ""
    """As the spec says it of what was withheld; elsewhere the origin's."""

    @property
    def withheld(self) -> bool:
        """Whether the image lacks it."""
        return self.layer is None

    @property
    def package_url(self) -> str:
        """The package URL, ``pkg:nix/…``."""
        return package_url(self.origin.package, self.path)

    def properties(self) -> Iterator[tuple[str, str]]:
        """Yield what the formats have no member for, by name."""
        yield PREFIX + "store-path", str(self.path)
        if self.layer is not None:
            yield PREFIX + "layer", str(self.layer.digest)
            yield PREFIX + "tier", self.layer.tier
        else:
            yield PREFIX + "withheld", "true"
        if self.nar_hash is not None:
            # Of the path's NAR: as the hash of a file it would be wrong.
            yield PREFIX + "nar-sha256", self.nar_hash.hex
            yield PREFIX + "nar-size", str(self.nar_size)
        if self.derivation:
            yield PREFIX + "derivation", self.derivation
        if self.origin.package.output:
            yield PREFIX + "output", self.origin.package.output
        if self.origin.status:
            yield PREFIX + "licence-status", self.origin.status
        if self.origin.url and not is_web_address(self.origin.url):
            yield PREFIX + "url", self.origin.url
        yield from ((PREFIX + "flake-input", name) for name in self.inputs)


@dataclass(frozen=True, slots=True)
class Sbom:
    """Everything in one image; *components* are sorted by store path, *layers* in their order."""

    image: Digest
    name: str
    kind: str
    system: str
    nar_hash: NarHash
    layers: tuple[ListedLayer, ...]
    components: tuple[Component, ...]

    @property
    def serial(self) -> uuid.UUID:
        """The UUID of this bill of materials: of the image's digest, and of all that is said."""
        said = canonical_json.dumps([_said(component) for component in self.components])
        return uuid.uuid5(_NAMESPACE, f"{self.image}\n{Digest.of(said)}")

    @property
    def package_url(self) -> str:
        """The image's package URL, ``pkg:oci/…``."""
        # The recipe's names are plain; a spec from elsewhere may have one that no URL can carry.
        name = self.name if _PLAIN.match(self.name) else self.kind
        return image_url(name, str(self.image), platform_of(self.system).architecture)

    @property
    def tops(self) -> tuple[StorePath, ...]:
        """The paths that no other refers to, and one of each circle that nothing else leads to."""
        references = {item.path: item.references for item in self.components}
        inner = {to for at, refs in references.items() for to in refs if to != at}
        tops = [path for path in references if path not in inner]
        seen = _reach(references, tops, set())
        for path in references:
            if path not in seen:
                tops.append(path)
                _reach(references, [path], seen)
        return tuple(sorted(tops))

    def properties(self) -> Iterator[tuple[str, str]]:
        """Yield what is to be said of the image itself, by name."""
        yield PREFIX + "kind", self.kind
        yield PREFIX + "system", self.system
        yield PREFIX + "nar-sha256", self.nar_hash.hex


def build_sbom(
    image: Digest, manifest: Manifest, spec: Spec, origins: Mapping[StorePath, Origin] | None = None
) -> Sbom:
    """Say what *spec*, the spec of the image with this digest and *manifest*, holds.

    *origins* is what a flake says of its paths; of the others only their names speak.
    """
    known = origins or {}
    tiers = [*(group.tier for group in spec.layers), CONTAINER_TIER]
    layers = tuple(
        ListedLayer(blob.digest, tier) for blob, tier in zip(manifest.layers, tiers, strict=True)
    )
    inputs = _inputs(spec)
    inside = (
        _component(spec, path, layer, known.get(path), inputs.get(str(path), ()))
        for group, layer in zip(spec.layers, layers, strict=False)
        for path in group.paths
    )
    lacking = (_withheld(item, known.get(item.path)) for item in spec.withheld)
    return Sbom(
        image=image,
        name=spec.name,
        kind=spec.kind,
        system=spec.system,
        nar_hash=spec.nar_hash,
        layers=layers,
        components=tuple(sorted((*inside, *lacking), key=lambda item: item.path)),
    )


def _inputs(spec: Spec) -> dict[str, tuple[str, ...]]:
    """Return by store path the flake inputs whose source tree it is."""
    found: dict[str, tuple[str, ...]] = {}
    for name, path in sorted(spec.inputs.items()):
        found[path] = (*found.get(path, ()), name)
    return found


def _component(
    spec: Spec, path: StorePath, layer: ListedLayer, origin: Origin | None, inputs: tuple[str, ...]
) -> Component:
    info = spec.paths[path]
    origin = origin or Origin(parse_name(path.name))
    return Component(
        path=path,
        origin=origin,
        layer=layer,
        nar_hash=info.nar_hash,
        nar_size=info.nar_size,
        references=tuple(sorted(set(info.references) - {path})),
        inputs=inputs,
        derivation=str(origin.derivation or ""),
    )


def _withheld(item: Withheld, origin: Origin | None) -> Component:
    """Say of a path that the image lacks what its spec says, and what the flake says besides."""
    concluded = item.licence if is_licence(item.licence) else ""
    origin = origin or Origin(
        parse_name(item.path.name), concluded=concluded, status="withheld", url=item.url
    )
    return Component(path=item.path, origin=origin, derivation=item.derivation)


def _reach(
    references: Mapping[StorePath, Iterable[StorePath]],
    roots: Iterable[StorePath],
    seen: set[StorePath],
) -> set[StorePath]:
    """Add to *seen*, and return, all that *roots* lead to."""
    stack = list(roots)
    while stack:
        path = stack.pop()
        if path in references and path not in seen:
            seen.add(path)
            stack += references[path]
    return seen


def _said(component: Component) -> list[object]:
    origin = component.origin
    return [
        [list(each) for each in component.properties()],
        [str(path) for path in component.references],
        component.package_url,
        [origin.declared, origin.concluded, origin.url, origin.fetched],
    ]


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
    depends: dict[str, list[str]] = {}
    for item in value["relationships"]:
        if item["relationshipType"] == "DEPENDS_ON":
            depends.setdefault(item["spdxElementId"], []).append(item["relatedSpdxElement"])
    parts = []
    for item, said in listed:
        references = frozenset(paths[other] for other in depends.get(item["SPDXID"], ()))
        licences = [item[key] for key in ("licenseDeclared", "licenseConcluded")]
        declared, concluded = (names.get(each, each) for each in licences)
        url = item.get("sourceInfo", "").removeprefix("fetched from ") or item.get("homepage", "")
        parts.append(_Part(said, references, declared, concluded, url))
    return _Bill(image, tuple(parts))


_READERS: Mapping[str, Callable[[Any], _Bill]] = {
    "cyclonedx": _read_cyclonedx,
    "spdx": _read_spdx,
}
