"""A bill of materials as CycloneDX 1.6 in JSON, written by CycloneDX's own library.

The library's models say what may be written and how; its order of members, its clock and its
random numbers are not used, so that the same values are always the same bytes. It takes a while to
import: so whoever needs this module does that late.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from cyclonedx.model import (
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    Property,
    XsUri,
    component as cdx,
    lifecycle,
)
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.bom_ref import BomRef
from cyclonedx.model.dependency import Dependency
from cyclonedx.model.license import (
    DisjunctiveLicense,
    License,
    LicenseAcknowledgement,
    LicenseExpression,
)
from cyclonedx.schema.schema import SchemaVersion1Dot6
from cyclonedx.spdx import is_supported_id
from packageurl import PackageURL

from nix_seed.core import canonical_json
from nix_seed.core.safe_text import is_web_address
from nix_seed.sbom.rules.sbom import Component, Origin, Sbom
from nix_seed.sbom.rules.spdx import read_expression


def write_cyclonedx(sbom: Sbom) -> bytes:
    """Return the document as canonical JSON."""
    value = _serialised(Bom(serial_number=sbom.serial, metadata=_metadata(sbom)))
    # The library always states the present; when this was written says nothing of the image.
    del value["metadata"]["timestamp"]
    # One by one: of all together, the library compares each with many and searches for stray
    # references by the square of their number.
    value |= {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "components": [_serialised(_component(item)) for item in sbom.components],
        "dependencies": [_serialised(item) for item in _dependencies(sbom)],
    }
    return canonical_json.dumps(value)


def _serialised(model: Bom | cdx.Component | Dependency) -> dict[str, Any]:
    """Return a model of the library as it writes it in version 1.6."""
    text = model.as_json(view_=SchemaVersion1Dot6)  # type: ignore[union-attr]
    value: dict[str, Any] = json.loads(text)
    return value


def _metadata(sbom: Sbom) -> BomMetaData:
    metadata = BomMetaData(
        component=cdx.Component(
            type=cdx.ComponentType.CONTAINER,
            bom_ref=sbom.package_url,
            name=sbom.name or sbom.kind,
            version=str(sbom.image),
            purl=PackageURL.from_string(sbom.package_url),
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sbom.image.hex)],
            properties=_properties(sbom.properties()),
        ),
        lifecycles=[lifecycle.PredefinedLifecycle(lifecycle.LifecyclePhase.POST_BUILD)],
    )
    writer = cdx.Component(name="nix-seed", type=cdx.ComponentType.APPLICATION)
    metadata.tools.components.add(writer)
    return metadata


def _component(item: Component) -> cdx.Component:
    package = item.origin.package
    return cdx.Component(
        # What the specification says of software whose type cannot be told.
        type=cdx.ComponentType.APPLICATION,
        bom_ref=str(item.path),
        name=package.name,
        version=package.version or None,
        purl=PackageURL.from_string(item.package_url),
        licenses=_licences(item.origin),
        external_references=_links(item.origin),
        properties=_properties(item.properties()),
    )


def _properties(pairs: Iterable[tuple[str, str]]) -> list[Property]:
    return [Property(name=name, value=value) for name, value in pairs]


def _licences(origin: Origin) -> list[License]:
    """Return the licence that is declared, else the one concluded; none where there is neither."""
    text = origin.declared or origin.concluded
    if not text:
        return []
    how = LicenseAcknowledgement.DECLARED if origin.declared else LicenseAcknowledgement.CONCLUDED
    expression = read_expression(text)
    if expression is None:
        return [DisjunctiveLicense(name=text, acknowledgement=how)]
    if is_supported_id(expression):
        return [DisjunctiveLicense(id=expression, acknowledgement=how)]
    return [LicenseExpression(expression, acknowledgement=how)]


def _links(origin: Origin) -> list[ExternalReference]:
    if not is_web_address(origin.url):
        return []
    source, home = ExternalReferenceType.SOURCE_DISTRIBUTION, ExternalReferenceType.WEBSITE
    return [ExternalReference(type=source if origin.fetched else home, url=XsUri(origin.url))]


def _dependencies(sbom: Sbom) -> Iterator[Dependency]:
    """Yield what each part refers to, sorted by the part."""
    leaves = {item.path: Dependency(BomRef(str(item.path))) for item in sbom.components}
    for item in sbom.components:
        yield Dependency(BomRef(str(item.path)), [leaves[path] for path in item.references])
    # "pkg:" comes after "/nix/store".
    yield Dependency(BomRef(sbom.package_url), [leaves[path] for path in sbom.tops])
