"""Bills of materials for tests: made of specs by hand, and judged by others' validators."""

from __future__ import annotations

import json
from typing import Any

from nix_seed.core.digests import Digest
from nix_seed.formats.oci.manifest import Descriptor, Manifest, MediaType
from nix_seed.image.rules.spec import Spec

IMAGE = Digest.of(b"the image")


def manifest_of(spec: Spec) -> Manifest:
    """A manifest with as many layers as an image of *spec* has."""
    blobs = [b"layer %d" % number for number in range(len(spec.layers) + 1)]
    return Manifest(
        Descriptor(MediaType.CONFIG, Digest.of(b"config"), 6),
        tuple(Descriptor(MediaType.LAYER, Digest.of(blob), len(blob)) for blob in blobs),
    )


def valid_cyclonedx(text: bytes) -> Any:
    """Return the document, which CycloneDX's own strict schema of 1.6 takes."""
    # Takes seconds, which those do without who only collect tests.
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text.decode())
    assert error is None, error
    return json.loads(text)


def valid_spdx(text: bytes) -> Any:
    """Return the document, which SPDX's own tools take for a valid one of 2.3."""
    from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

    value = json.loads(text)
    document = JsonLikeDictParser().parse(value)  # type: ignore[no-untyped-call]
    messages = validate_full_spdx_document(document, "SPDX-2.3")
    assert not messages, [message.validation_message for message in messages[:5]]
    return value
