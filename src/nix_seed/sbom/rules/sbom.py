"""A bill of materials as values: what an image holds, and what is known of each part.

A pure function of the image (its digest, manifest and spec) and of what a flake says of the store
paths; the formats (CycloneDX, SPDX) are written from it and add nothing. What nobody stated is
empty here, and never a guess.
"""

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from nix_seed.core import canonical_json
from nix_seed.core.digests import Digest, NarHash
from nix_seed.core.safe_text import is_web_address
from nix_seed.flake.rules.licence import is_licence
from nix_seed.flake.rules.names import Package, image_url, package_url, parse_name
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.formats.oci.manifest import Manifest, platform_of
from nix_seed.image.rules.documents import CONTAINER_TIER
from nix_seed.image.rules.spec import Spec
from nix_seed.licences.rules.withheld import Withheld

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
