from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError
from nix_seed.formats.oci.manifest import Descriptor, Index, Manifest, MediaType, Platform

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
ANNOTATIONS = st.dictionaries(TEXT, TEXT, max_size=3)
OPTIONAL = st.none() | TEXT
DESCRIPTORS = st.builds(
    Descriptor,
    TEXT,
    st.builds(Digest.of, st.binary()),
    st.integers(0, 2**53 - 1),
    ANNOTATIONS,
    st.none() | st.builds(Platform, TEXT, TEXT, OPTIONAL),
    OPTIONAL,
)
LAYERS = st.lists(DESCRIPTORS, max_size=3).map(tuple)
ONE = Descriptor(MediaType.CONFIG, Digest.of(b""), 0)
GOOD: dict[str, Any] = json.loads(Manifest(ONE, (ONE,), {"a": "b"}).dump())


@given(st.builds(Manifest, DESCRIPTORS, LAYERS, ANNOTATIONS, OPTIONAL, st.none() | DESCRIPTORS))
def test_a_manifest_is_read_as_it_was_written(manifest: Manifest) -> None:
    assert Manifest.parse(manifest.dump(), "x") == manifest


@given(st.builds(Index, LAYERS, ANNOTATIONS, OPTIONAL))
def test_an_index_is_read_as_it_was_written(index: Index) -> None:
    assert Index.parse(index.dump(), "x") == index


def test_members_that_are_not_known_are_let_be() -> None:
    value = GOOD | {"future": [1], "layers": [GOOD["layers"][0] | {"urls": ["x"], "data": ""}]}
    assert Manifest.parse(json.dumps(value).encode(), "x") == Manifest(ONE, (ONE,), {"a": "b"})
    del value["mediaType"]  # image-spec 1.0
    assert Manifest.parse(json.dumps(value).encode(), "x").layers == (ONE,)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"schemaVersion": 1}, "x: schemaVersion is not 2"),
        ({"schemaVersion": True}, "x: schemaVersion must be an integer"),
        ({"schemaVersion": "2"}, "x: schemaVersion must be an integer"),
        ({"mediaType": MediaType.INDEX}, f"x: mediaType is not {MediaType.MANIFEST}"),
        ({"config": None}, "x: config must be an object"),
        ({"layers": {}}, "x: layers must be an array"),
        ({"layers": [1]}, "x, layers[0]: an object is wanted, not int"),
        ({"layers": [GOOD["config"], {}]}, "x, layers[1]: mediaType must be a string"),
        ({"config": GOOD["config"] | {"size": -1}}, "x, config: size is negative"),
        ({"config": GOOD["config"] | {"size": 1.0}}, "x, config: size must be an integer"),
        ({"config": GOOD["config"] | {"size": True}}, "x, config: size must be an integer"),
        ({"config": GOOD["config"] | {"digest": "sha512:00"}}, "'sha512:00' is not a digest"),
        ({"config": GOOD["config"] | {"mediaType": 1}}, "x, config: mediaType must be a string"),
        ({"config": GOOD["config"] | {"platform": {}}}, "x, config, platform: os must be a string"),
        ({"annotations": {"a": 1}}, "x, annotations: a must be a string"),
        ({"annotations": []}, "x: annotations must be an object"),
        ({"subject": "x"}, "x: subject must be an object"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError) as caught:
        Manifest.parse(json.dumps(GOOD | change).encode(), "x")
    assert why in caught.value.message


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"2", b'"x"', b"{}", b'{"a":1,"a":2}'])
def test_what_is_no_document_is_refused(text: bytes) -> None:
    for read in (Manifest.parse, Index.parse):
        with pytest.raises(InputError, match=r"^x"):
            read(text, "x")
