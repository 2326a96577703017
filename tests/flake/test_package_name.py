"""Names of store paths, divided as Nix does, and package URLs that others read back."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import given, strategies as st
from packageurl import PackageURL

from nix_seed.flake.rules.names import Package, image_url, name_of_output, package_url, parse_name
from support.distribution import nix
from support.specs import store_path

NAMES = st.text(string.ascii_letters + string.digits + "+-._?=", min_size=1, max_size=211)
EXAMPLES = [
    "gcc-12.2.0-lib",
    "glibc-2.39-52-bin",
    "python3.11-requests-2.31.0",
    "source",
    "a-",
    "-1",
    "--",
    "a--b",
    "a-_1",
    "libstdc++6-12.2.0-14+deb12u1",
    "hello-1.0.tar.gz",
    "x-=?",
    "1-2-3",
]


@pytest.mark.parametrize(
    ("text", "package"),
    [
        ("gcc-12.2.0-lib", Package("gcc", "12.2.0-lib")),
        ("python3.11-requests-2.31.0", Package("python3.11-requests", "2.31.0")),
        ("source", Package("source")),
        ("stdenv-linux", Package("stdenv-linux")),
        ("-1", Package("-1")),
    ],
)
def test_a_name_is_divided(text: str, package: Package) -> None:
    assert parse_name(text) == package


def test_nix_divides_the_same_way(distribution: object) -> None:
    expression = f"map builtins.parseDrvName (builtins.fromJSON ''{json.dumps(EXAMPLES)}'')"
    answers = json.loads(nix("eval", "--json", "--expr", expression))
    for text, answer in zip(EXAMPLES, answers, strict=True):
        if answer["name"]:
            assert parse_name(text) == Package(answer["name"], answer["version"]), text
        else:
            assert parse_name(text) == Package(text)


@given(NAMES)
def test_nothing_is_lost_or_added(text: str) -> None:
    found = parse_name(text)
    assert found.name
    assert f"{found.name}-{found.version}" == text if found.version else found.name == text


@given(NAMES, NAMES, st.sampled_from(["", "out", "dev", "a+b"]))
def test_others_read_our_package_urls_back(name: str, version: str, output: str) -> None:
    path = store_path("x")
    text = package_url(Package(name, version, output), path)
    read = PackageURL.from_string(text)
    assert (read.type, read.namespace, read.name, read.version) == ("nix", None, name, version)
    wanted = {"outputhash": path.hash_part} | ({"output": output} if output else {})
    assert read.qualifiers == wanted
    assert PackageURL.from_string(read.to_string()) == read


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}", fullmatch=True))
def test_others_read_an_images_package_url_back(name: str) -> None:
    read = PackageURL.from_string(image_url(name, f"sha256:{'0' * 64}", "amd64"))
    assert (read.type, read.name, read.version) == ("oci", name.lower(), f"sha256:{'0' * 64}")
    assert read.qualifiers == {"arch": "amd64"}


def test_a_derivation_says_where_its_version_begins() -> None:
    said = {"pname": "font-7x14", "version": "1"}
    assert name_of_output("font-7x14-1", "out", said) == Package("font-7x14", "1", "out")
    # What it says of another name is not believed.
    assert name_of_output("font-2", "out", said) == Package("font", "2", "out")
    assert name_of_output("openssl-3.0", "dev", {}) == Package("openssl", "3.0", "dev")
