from __future__ import annotations

import string

import pytest
from hypothesis import given, strategies as st

from nix_seed.core.errors import InputError
from nix_seed.formats.nix.store_path import PathSignature, StorePath

HASH = "0123456789abcdfghijklmnpqrsvwxyz"
NAMES = st.text(string.ascii_letters + string.digits + "+-._?=", min_size=1, max_size=211)


@given(NAMES.filter(lambda name: name not in (".", "..")))
def test_a_path_has_one_spelling(name: str) -> None:
    text = f"/nix/store/{HASH}-{name}"
    path = StorePath.parse(text)
    assert str(path) == text
    assert (path.hash_part, path.name) == (HASH, name)
    assert path.package
    assert StorePath.containing(text) == StorePath.containing(f"{text}/bin/x") == path


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "/nix/store",
        "/nix/store/",
        f"/nix/store/{HASH}",
        f"/nix/store/{HASH}-",
        f"/nix/store/{HASH}-.",
        f"/nix/store/{HASH}-..",
        f"/nix/store/{HASH}-a/",
        f"/nix/store/{HASH}-a/b",
        f"/nix/store/{HASH}-a\n",
        f"/nix/store/{HASH}-a b",
        f"/nix/store/{HASH}-é",
        f"/nix/store/{HASH}-{'a' * 212}",
        f"/nix/store/{HASH[1:]}e-a",
        f"/nix/store/{HASH.upper()}-a",
        f"/nix/store/{HASH}0-a",
        f"nix/store/{HASH}-a",
        f"//nix/store/{HASH}-a",
        f"/nix/store//{HASH}-a",
        f"/nix/store/../store/{HASH}-a",
        f"/gnu/store/{HASH}-a",
        f" /nix/store/{HASH}-a",
    ],
)
def test_nothing_else_is_a_path(text: str) -> None:
    with pytest.raises(InputError, match="is not a path in /nix/store"):
        StorePath.parse(text)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (StorePath.parse, StorePath.containing):
        try:
            path = read(text)
        except InputError:
            continue
        assert text.startswith(str(path))


@pytest.mark.parametrize("text", ["AAAA=", "AAAA====", "AAA=A", "AA==AA==", "AB==", "AAAA\n"])
def test_a_signature_has_one_spelling(text: str) -> None:
    """In every Python: some take more padding than others."""
    assert PathSignature.parse("cache-1:AAAA").raw == bytes(3)
    assert PathSignature.parse(f"cache-1:{text}").raw == b""


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("openssl-3.0.13-dev", "openssl-dev"),
        ("gcc-12.2.0-lib", "gcc-lib"),
        ("gcc-wrapper-12.2.0", "gcc-wrapper"),
        ("zstd-1.5.0-rc1", "zstd"),
        ("tool-0-unstable-2024-01-02", "tool-unstable"),
        ("libgcc-12-dev-12.2.0-14+deb12u1", "libgcc-dev"),
        ("python3.11-requests-2.31.0", "python3.11-requests"),
        ("perl5.36.0-URI-5.05", "perl5.36.0-URI"),
        ("source", "source"),
        ("nss-cacert-3.98", "nss-cacert"),
        ("tzdata-2024a", "tzdata"),
        ("linux-headers-6.1", "linux-headers"),
        ("unzip-6.0.drv", "unzip"),
        ("libstdc++6-12.2.0", "libstdc++6"),
        ("2.39-master.patch", "2.39-master.patch"),
        ("-1.0", "-1.0"),
        ("glibc-2.39-52-bin", "glibc-bin"),
        ("bash-5.2-p15", "bash"),
        ("g++-12-12.2.0-14", "g++"),
        ("libfoo-0-unstable-2024-01-01", "libfoo-unstable"),
    ],
)
def test_a_package_is_its_name_without_the_version(name: str, package: str) -> None:
    assert StorePath(f"{HASH}-{name}").package == package
