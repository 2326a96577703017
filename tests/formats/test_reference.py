"""The one reference grammar."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError
from nix_seed.formats.oci.reference import LayoutReference, Reference, parse_reference

DIGEST = Digest("ab" * 32)

PART = st.from_regex(r"[a-z0-9]{1,6}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True)
HOST = st.one_of(
    st.sampled_from(["localhost", "127.0.0.1", "[::1]", "ghcr.io", "a-b.example", "docker.io"]),
    st.from_regex(r"[a-z0-9]{1,8}(\.[a-z0-9]{1,8}){1,3}", fullmatch=True),
)
REGISTRY = st.builds(
    lambda host, port: host if port is None else f"{host}:{port}",
    HOST,
    st.none() | st.integers(1, 65535),
)
TAG = st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", fullmatch=True)
DIGESTS = st.none() | st.binary(min_size=1, max_size=8).map(Digest.of)
REFERENCES = st.builds(
    Reference, REGISTRY, st.lists(PART, min_size=1, max_size=4).map("/".join), TAG, DIGESTS
)
DIRECTORY = st.text(
    st.characters(exclude_characters=":\0", exclude_categories=["Cs"]), min_size=1
).filter(lambda text: "@sha" not in text)
LAYOUTS = st.one_of(
    st.builds(LayoutReference, DIRECTORY, TAG),
    st.builds(LayoutReference, DIRECTORY, st.none(), DIGESTS),
)


@given(REFERENCES | LAYOUTS)
def test_what_is_written_is_read_back(reference: Reference | LayoutReference) -> None:
    assert parse_reference(str(reference)) == reference


@given(st.text(max_size=60) | st.text("ab./:@-_[]oci0A", max_size=30))
def test_every_text_is_refused_or_is_the_one_spelling_of_its_value(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InputError:
        return
    assert str(reference) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ghcr.io/o/r:tag", Reference("ghcr.io", "o/r", "tag")),
        (f"host:5000/r@{DIGEST}", Reference("host:5000", "r", None, DIGEST)),
        ("localhost/r", Reference("localhost", "r")),
        (f"ghcr.io/o/r:v1@{DIGEST}", Reference("ghcr.io", "o/r", "v1", DIGEST)),
        ("[::1]:5000/r:T", Reference("[::1]:5000", "r", "T")),
        ("oci:seed", LayoutReference("seed")),
        ("oci:/a b/seed:v1", LayoutReference("/a b/seed", "v1")),
        (f"oci:../seed@{DIGEST}", LayoutReference("../seed", None, DIGEST)),
        ("oci:/home/me@work/seed", LayoutReference("/home/me@work/seed")),
    ],
)
def test_forms(text: str, expected: Reference | LayoutReference) -> None:
    assert parse_reference(text) == expected


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "debian:12",
            "'debian:12' names no registry",
            "debian:12, for an image layout on disk oci:debian:12,",
        ),
        ("./a.oci", "'./a.oci' names a place on disk, and no registry", "write oci:./a.oci"),
        ("/a/b:c", "'/a/b:c' names a place on disk, and no registry", "write oci:/a/b:c"),
        (".", "'.' names a place on disk, and no registry", "a flake is built first: nix-seed"),
        (".#nothing", "'.#nothing' names a flake, not an image", "nix-seed build FLAKE"),
        ("github:o/r", "'github:o/r' names a flake, not an image", "nix-seed build FLAKE"),
        ("git+ssh://h/o/r", "names a flake, not an image", "nix-seed build FLAKE"),
        ("docker-archive:a.tar", "only registries and", "skopeo copy docker-archive:a.tar oci:DIR"),
        ("owner/seed", "'owner/seed' names no registry", "write docker.io/owner/seed,"),
        ("https://ghcr.io/o/r", "'https://ghcr.io/o/r': a reference has no", "write ghcr.io/o/r"),
        ("ghcr.io/Owner/Seed", "ghcr.io/Owner/Seed has upper-case", "write ghcr.io/owner/seed"),
        ("GHCR.io/o/r", "'GHCR.io' has upper-case letters", "write ghcr.io"),
        ("ghcr.io/o/r:", "ghcr.io/o/r: '' is not a tag", "128 letters"),
        ("ghcr.io/o/r:a:b", "ghcr.io/o/r: 'a:b' is not a tag", "128 letters"),
        ("ghcr.io/o//r", "'o//r' is not a repository's name", "lower-case"),
        ("ghcr.io/", "'' is not a repository's name", "lower-case"),
        ("host:99999/r", "'host:99999' is not a host, or a host and a port", "host:5000"),
        ("host:05/r", "'host:05' is not a host, or a host and a port", "host:5000"),
        ("oci:", "oci: names no directory", "oci:DIR"),
        ("oci::tag", "oci: names no directory", "oci:DIR"),
        ("ghcr.io/r@sha256:12", "'sha256:12' is not a digest", ""),
        (f"ghcr.io/r@sha512:{'0' * 128}", "is not a digest of the form sha256:", ""),
        ("oci:a:b:c", "oci:a:b: the directory of an image layout cannot have ':'", ""),
        (f"oci:a:b@{DIGEST}", "oci:a: give a tag or a digest, not both", ""),
        ("", "'' names no registry", "write ghcr.io"),
    ],
)
def test_refusals_say_what_to_write(text: str, message: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_reference(text)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


def test_a_name_of_more_than_255_characters_is_refused() -> None:
    Reference("ghcr.io", "a" * 247)
    with pytest.raises(InputError, match="longer than 255 characters"):
        Reference("ghcr.io", "a" * 248)


@pytest.mark.parametrize("host", ["path:5000", "dir:5000"])
def test_a_host_that_is_called_like_a_scheme_is_one(host: str) -> None:
    assert parse_reference(f"{host}/r:v1") == Reference(host, "r", "v1")


def test_the_digest_decides_where_both_are_given() -> None:
    reference = Reference("ghcr.io", "o/r", "v1", DIGEST)
    assert reference.name == DIGEST
    assert reference.at("v2") == Reference("ghcr.io", "o/r", "v2")
    assert LayoutReference("d", "v1").at(DIGEST) == LayoutReference("d", None, DIGEST)
