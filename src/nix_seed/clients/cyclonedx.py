"""A bill of materials as CycloneDX 1.6 in JSON, written by CycloneDX's own library.

The library's models say what may be written and how; its order of members, its clock and its
random numbers are not used, so that the same values are always the same bytes.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from nix_seed.ground import canonical_json
from nix_seed.ground.errors import InputError
from nix_seed.rules.sbom import Component, Origin, Sbom
from nix_seed.rules.spdx_list import LICENCES, read_expression
from nix_seed.rules.web_address import is_web_address

if TYPE_CHECKING:
    from cyclonedx.model import ExternalReference, Property
    from cyclonedx.model import component as cdx
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.dependency import Dependency
    from cyclonedx.model.license import License

__all__ = ["check_cyclonedx", "has_cyclonedx", "write_cyclonedx"]

_LISTED = frozenset(LICENCES)


def has_cyclonedx() -> bool:
    """Whether the library is installed; it takes a while to import, so that is left for later."""
    return importlib.util.find_spec("cyclonedx") is not None


def check_cyclonedx() -> None:
    """Raise ``InputError`` if the library is not installed."""
    if not has_cyclonedx():
        raise InputError(
            "CycloneDX is written by the library cyclonedx-python-lib, which is not installed",
            hint="install it: pip install 'nix-seed[sbom]'; SPDX needs no library",
        )


def write_cyclonedx(sbom: Sbom) -> bytes:
    """Return the document as canonical JSON; ``InputError`` if the library is not installed."""
    check_cyclonedx()
    return _dump(_bom(sbom))


def _dump(bom: Bom) -> bytes:
    """Serialise as the library does for 1.6, but for its search for stray references.

    That search takes time by the square of the components: minutes for what takes seconds here.
    """
    from cyclonedx.schema.schema import SchemaVersion1Dot6  # noqa: PLC0415

    value = json.loads(bom.as_json(view_=SchemaVersion1Dot6))  # type: ignore[attr-defined]
    value |= {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
    }
    # The library always states the present; when this was written says nothing of the image.
    del value["metadata"]["timestamp"]
    value["components"] = sorted(value.get("components", ()), key=lambda item: item["bom-ref"])
    value["dependencies"] = sorted(value["dependencies"], key=lambda item: item["ref"])
    return canonical_json.dumps(value)


def _bom(sbom: Sbom) -> Bom:
    from cyclonedx.model import bom, component, lifecycle  # noqa: PLC0415

    writer = component.Component(name="nix-seed", type=component.ComponentType.APPLICATION)
    metadata = bom.BomMetaData(
        component=_image(sbom),
        lifecycles=[lifecycle.PredefinedLifecycle(lifecycle.LifecyclePhase.POST_BUILD)],
    )
    metadata.tools.components.add(writer)
    written = bom.Bom(
        components=map(_component, sbom.components), serial_number=sbom.serial, metadata=metadata
    )
    written.dependencies = _dependencies(sbom)
    return written


def _image(sbom: Sbom) -> cdx.Component:
    from cyclonedx.model import HashAlgorithm, HashType, component  # noqa: PLC0415
    from packageurl import PackageURL  # noqa: PLC0415

    return component.Component(
        type=component.ComponentType.CONTAINER,
        bom_ref=sbom.package_url,
        name=sbom.name or sbom.kind,
        version=str(sbom.image),
        purl=PackageURL.from_string(sbom.package_url),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sbom.image.hex)],
        properties=_properties(sbom.properties()),
    )


def _component(item: Component) -> cdx.Component:
    from cyclonedx.model import component  # noqa: PLC0415
    from packageurl import PackageURL  # noqa: PLC0415

    package = item.origin.package
    return component.Component(
        # What the specification says of software whose type cannot be told.
        type=component.ComponentType.APPLICATION,
        bom_ref=str(item.path),
        name=package.name,
        version=package.version or None,
        purl=PackageURL.from_string(item.package_url),
        licenses=_licences(item.origin),
        external_references=_links(item.origin),
        properties=_properties(item.properties()),
    )


def _properties(pairs: Iterable[tuple[str, str]]) -> list[Property]:
    from cyclonedx.model import Property  # noqa: PLC0415

    return [Property(name=name, value=value) for name, value in pairs]


def _licences(origin: Origin) -> list[License]:
    """Return the licence that is declared, else the one concluded; none where there is neither."""
    from cyclonedx.model.license import (  # noqa: PLC0415
        DisjunctiveLicense,
        LicenseAcknowledgement,
        LicenseExpression,
    )

    text = origin.declared or origin.concluded
    if not text:
        return []
    how = LicenseAcknowledgement.DECLARED if origin.declared else LicenseAcknowledgement.CONCLUDED
    expression = read_expression(text)
    if expression is None:
        return [DisjunctiveLicense(name=text, acknowledgement=how)]
    if expression in _LISTED:
        return [DisjunctiveLicense(id=expression, acknowledgement=how)]
    return [LicenseExpression(expression, acknowledgement=how)]


def _links(origin: Origin) -> list[ExternalReference]:
    from cyclonedx.model import ExternalReference, ExternalReferenceType, XsUri  # noqa: PLC0415

    if not is_web_address(origin.url):
        return []
    source, home = ExternalReferenceType.SOURCE_DISTRIBUTION, ExternalReferenceType.WEBSITE
    return [ExternalReference(type=source if origin.fetched else home, url=XsUri(origin.url))]


def _dependencies(sbom: Sbom) -> list[Dependency]:
    from cyclonedx.model.bom_ref import BomRef  # noqa: PLC0415
    from cyclonedx.model.dependency import Dependency  # noqa: PLC0415

    leaves = {item.path: Dependency(BomRef(str(item.path))) for item in sbom.components}
    image = Dependency(BomRef(sbom.package_url), [leaves[path] for path in sbom.tops])
    return [
        image,
        *(
            Dependency(BomRef(str(item.path)), [leaves[path] for path in item.references])
            for item in sbom.components
        ),
    ]
