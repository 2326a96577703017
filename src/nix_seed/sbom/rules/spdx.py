"""A bill of materials as SPDX 2.3 in JSON (ISO/IEC 5962, with 2.3's additions).

The image is a package that contains its layers, each a file with a digest; a layer contains store
paths, which depend on one another. What SPDX has no member for stands in an annotation.

Licence identifiers are those of the SPDX list, and expressions are made of them (annex D). The
library ``license-expression`` ships the list. Whether a work may be passed on is
``flake/rules/licence.py``'s; here is only what a name *is*.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Final

from nix_seed.core import canonical_json
from nix_seed.core.digests import Digest
from nix_seed.core.safe_text import is_web_address
from nix_seed.flake.rules.licence import parse_expression
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.sbom.rules.sbom import CREATED, PREFIX, Component, ListedLayer, Sbom

_WORD = re.compile(r"[()]|[A-Za-z0-9.+-]+")
# What the library knows others to write, and SPDX does not list.
_UNLISTED = {"BSD-2", "GPL", "Verbatim-man-pages", "Assembly-exception"}
# What the library calls an exception, and SPDX a licence that includes one, as all "-with-".
_WHOLE = {"MPL-2.0-no-copyleft-exception", "eCos-2.0"}


@cache
def spdx_list() -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return licences and exceptions, the deprecated ones too, each by its lower-case spelling."""
    from license_expression import get_license_index

    licences: dict[str, str] = {}
    exceptions: dict[str, str] = {}
    for entry in get_license_index():
        for name in (entry["spdx_license_key"] or "", *entry["other_spdx_license_keys"]):
            if _WORD.fullmatch(name) and not name.startswith("LicenseRef-"):
                one = "-with-" not in name and name not in _WHOLE and entry["is_exception"]
                (exceptions if one else licences)[name.lower()] = name
    for name in _UNLISTED:
        licences.pop(name.lower(), None)
        exceptions.pop(name.lower(), None)
    return licences, exceptions


def read_expression(text: str) -> str | None:
    """Return the expression in the list's own spelling; None if it is none, or names others.

    ``mit or (GPL-2.0-only with classpath-exception-2.0)`` is ``MIT OR (GPL-2.0-only WITH
    Classpath-exception-2.0)``.
    """
    tree = parse_expression(text)
    if tree is None or not all(map(_is_listed, tree.get_literals())):
        return None
    words = " ".join(_spelled(word) for word in _WORD.findall(text))
    return words.replace("( ", "(").replace(" )", ")")


def _is_listed(symbol: Any) -> bool:
    exception = getattr(symbol, "exception_symbol", None)
    if exception is not None:
        known = exception.key.lower() in spdx_list()[1]
        return known and _is_listed(symbol.license_symbol)
    return symbol.key.lower().removesuffix("+") in spdx_list()[0]


def _spelled(word: str) -> str:
    licences, exceptions = spdx_list()
    lower = word.lower()
    plain = licences.get(lower) or exceptions.get(lower)
    if plain is None and lower.endswith("+"):
        return licences[lower[:-1]] + "+"
    return plain or word.upper()


_NOTHING: Final = "NOASSERTION"
_TOOL: Final = "Tool: nix-seed"
_DOCUMENT: Final = "SPDXRef-DOCUMENT"
_IMAGE: Final = "SPDXRef-image"
_REFERENCE = re.compile(r"LicenseRef-[A-Za-z0-9.-]+\Z")
_STRANGE = re.compile(r"[^A-Za-z0-9.-]")


def write_spdx(sbom: Sbom) -> bytes:
    """Return the document as canonical JSON: the same values are always the same bytes."""
    licences: dict[str, str] = {}
    packages = [_component(item, licences) for item in sbom.components]
    document = {
        "spdxVersion": "SPDX-2.3",
        "SPDXID": _DOCUMENT,
        "dataLicense": "CC0-1.0",
        "name": sbom.name or sbom.kind,
        "documentNamespace": f"urn:uuid:{sbom.serial}",
        "creationInfo": {"created": CREATED, "creators": [_TOOL]},
        "packages": [_image(sbom), *map(_layer, _layers(sbom)), *packages],
        "relationships": [
            {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}
            for one, kind, other in _relationships(sbom)
        ],
    }
    if licences:
        document["hasExtractedLicensingInfos"] = [
            {"licenseId": name, "name": text, "extractedText": text}
            for name, text in sorted(licences.items())
        ]
    return canonical_json.dumps(document)


def _package(identity: str, name: str, **more: Any) -> dict[str, Any]:
    """Return a package with all that tools expect to be said, if only that it is not known."""
    return {
        "SPDXID": identity,
        "name": name,
        "downloadLocation": _NOTHING,
        "filesAnalyzed": False,
        "supplier": _NOTHING,
        "licenseConcluded": _NOTHING,
        "licenseDeclared": _NOTHING,
        "copyrightText": _NOTHING,
    } | more


def _image(sbom: Sbom) -> dict[str, Any]:
    return _package(
        _IMAGE,
        sbom.name or sbom.kind,
        versionInfo=str(sbom.image),
        primaryPackagePurpose="CONTAINER",
        checksums=_checksums(sbom.image),
        externalRefs=[_purl(sbom.package_url)],
        annotations=_annotations(sbom.properties()),
    )


def _layers(sbom: Sbom) -> Iterable[ListedLayer]:
    """Return the layers, each once: what has the same digest is the same file."""
    return {layer.digest: layer for layer in sbom.layers}.values()


def _layer(layer: ListedLayer) -> dict[str, Any]:
    return _package(
        _layer_id(layer),
        str(layer.digest),
        primaryPackagePurpose="ARCHIVE",
        checksums=_checksums(layer.digest),
        annotations=_annotations([(PREFIX + "tier", layer.tier)]),
    )


def _component(item: Component, licences: dict[str, str]) -> dict[str, Any]:
    origin = item.origin
    more: dict[str, Any] = {
        "licenseConcluded": _licence(origin.concluded, licences),
        "licenseDeclared": _licence(origin.declared, licences),
        "externalRefs": [_purl(item.package_url)],
        "annotations": _annotations(item.properties()),
    }
    if origin.package.version:
        more["versionInfo"] = origin.package.version
    if origin.url and is_web_address(origin.url):
        if origin.fetched:
            more["sourceInfo"] = f"fetched from {origin.url}"
        else:
            more["homepage"] = origin.url
    return _package(_path_id(item.path), origin.package.name, **more)


def _licence(text: str, licences: dict[str, str]) -> str:
    """Return the expression, or a reference to the licence that *text* names, which it adds."""
    if not text:
        return _NOTHING
    expression = read_expression(text)
    if expression is not None:
        return expression
    # A name is no identifier; its hash is, and two names have two.
    made = f"LicenseRef-nix-seed-{Digest.of(text.encode()).hex[:32]}"
    reference = text if _REFERENCE.match(text) else made
    licences[reference] = text
    return reference


def _relationships(sbom: Sbom) -> Iterator[tuple[str, str, str]]:
    yield _DOCUMENT, "DESCRIBES", _IMAGE
    yield from ((_IMAGE, "CONTAINS", _layer_id(layer)) for layer in _layers(sbom))
    for item in sbom.components:
        identity = _path_id(item.path)
        if item.layer is None:
            yield _IMAGE, "HAS_PREREQUISITE", identity
        else:
            yield _layer_id(item.layer), "CONTAINS", identity
        yield from ((identity, "DEPENDS_ON", _path_id(path)) for path in item.references)


def _layer_id(layer: ListedLayer) -> str:
    return f"SPDXRef-layer-{layer.digest.hex}"


def _path_id(path: StorePath) -> str:
    """Return an identifier, which has letters, digits, dots and dashes only."""
    plain = _STRANGE.sub("-", path.base_name)
    mark = "" if plain == path.base_name else f"-{Digest.of(path.base_name.encode()).hex[:8]}"
    return f"SPDXRef-{plain}{mark}"


def _checksums(digest: Digest) -> list[dict[str, str]]:
    return [{"algorithm": "SHA256", "checksumValue": digest.hex}]


def _purl(text: str) -> dict[str, str]:
    return {
        "referenceCategory": "PACKAGE-MANAGER",
        "referenceType": "purl",
        "referenceLocator": text,
    }


def _annotations(properties: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """Return one annotation whose comment is a JSON object; what has several values is a list."""
    said: dict[str, Any] = {}
    for name, value in properties:
        said[name] = [*said[name], value] if name in said else [value]
    comment = {name: each[0] if len(each) == 1 else each for name, each in said.items()}
    return [
        {
            "annotationDate": CREATED,
            "annotationType": "OTHER",
            "annotator": _TOOL,
            "comment": canonical_json.dumps(comment).decode(),
        }
    ]
