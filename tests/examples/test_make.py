"""`examples/debian/make`: what it decides, and what it says when it cannot go on."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from support.distribution import MAKE, require_nix


def room(name: str) -> ModuleType:
    if str(MAKE.parent) not in sys.path:
        sys.path.insert(0, str(MAKE.parent))
    return importlib.import_module(f"debian_flake.{name}")


def index(text: str) -> dict[str, object]:
    """Return an index from lines of "name: dependencies" or "name (provides): dependencies"."""
    packages = {}
    for line in text.strip().splitlines():
        left, _, depends = line.strip().partition(":")
        name, _, provides = left.partition(" ")
        stanza = (
            f"Package: {name}\nVersion: 1\nDepends: {depends.strip()}\n"
            f"Provides: {provides.strip('()')}\nFilename: pool/{name}.deb\nSHA256: 00\nSize: 1"
        )
        packages[name] = room("apt").parse_stanza(stanza)
    return packages


def resolve(wanted: str, text: str) -> dict[str, tuple[str, ...]]:
    graph: dict[str, tuple[str, ...]] = room("resolve").resolve(wanted.split(), index(text))
    return graph


def test_closure_follows_dependencies() -> None:
    found = resolve("a", "a: b (>= 1), c:any\nb: d\nc:\nd:\nunused:")
    assert found == {"a": ("b", "c"), "b": ("d",), "c": (), "d": ()}


def test_alternative_already_chosen_wins_over_the_first() -> None:
    assert resolve("a c", "a: b | c\nb:\nc:")["a"] == ("c",)
    assert resolve("a", "a: b | c\nb:\nc:")["a"] == ("b",)


def test_virtual_package_is_resolved_to_a_provider() -> None:
    assert resolve("a", "a: virtual\nz (virtual):\ny (virtual (= 1)):")["a"] == ("y",)


def test_maintainer_script_dependencies_are_left_out() -> None:
    assert resolve("a", "a: debconf (>= 0.5) | debconf-2.0, dpkg\ndebconf:\ndpkg:") == {"a": ()}


def test_libc_stands_at_the_bottom() -> None:
    found = resolve("libgcc-s1", "libgcc-s1: libc6\nlibc6: libgcc-s1")
    assert found == {"libgcc-s1": ("libc6",)} | {"libc6": ()}


def test_a_librarys_edge_to_a_program_is_what_is_cut() -> None:
    text = "libssl: provider\nprovider: libssl\ncurl: libssl"
    found = resolve("curl provider", text)
    assert found == {"curl": ("libssl",), "libssl": (), "provider": ("libssl",)}


@pytest.mark.parametrize("wanted", ["a b c", "c b a"])
def test_cycles_are_cut_the_same_way_in_any_order(wanted: str) -> None:
    assert resolve(wanted, "a: b\nb: c\nc: a") == {"a": ("b",), "b": ("c",), "c": ()}


def test_unknown_dependency_is_named_with_its_package() -> None:
    failure = room("errors").Failure
    with pytest.raises(failure, match="package a depends on b or c, which apt's lists do not"):
        resolve("a", "a: b | c")


def test_the_flake_of_another_architecture_names_it_and_no_other(tmp_path: Path) -> None:
    maker = room("distribution").Maker(print, system="aarch64-linux")
    maker.write(tmp_path / "flake", {"packages": {}})
    code = {file.name: file.read_text() for file in (tmp_path / "flake").iterdir()}
    assert 'cpu = "aarch64";' in code["stdenv.nix"]
    assert "include/aarch64-linux-gnu" in code["setup.sh"]
    # The label that is no more than one, and its loader, are x86_64's now.
    assert 'if system != "x86_64-linux" then' in code["nixpkgs.nix"]
    assert "lib/ld-linux-aarch64.so.1 $out/lib/ld-linux-x86-64.so.2" in code["nixpkgs.nix"]
    assert json.loads(code["packages.json"]) == {"packages": {}}


def test_fixed_path_is_nixs_own(tmp_path: Path) -> None:
    require_nix()
    command = ["nix-store", "--print-fixed-path", "sha256", "ab" * 32, "name_1.deb"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert room("store").fixed_path("ab" * 32, "name_1.deb") == done.stdout.strip()


@pytest.mark.parametrize(
    ("copyright_text", "spdx"),
    [
        ("Format: x\n\nFiles: *\nCopyright: me\nLicense: GPL-2+\n", "GPL-2.0-or-later"),
        ("Files: lib/*\nLicense: MIT\n\nFiles: *\nLicense: Expat\n", "MIT"),
        ("Files: *\nLicense: BSD-3-clause and GPL-3\n", "BSD-3-Clause AND GPL-3.0-only"),
        ("See /usr/share/common-licenses/LGPL-2.1, or any later version", "LGPL-2.1-or-later"),
        ("Files: *\nLicense: my-own\n", None),
    ],
)
def test_licence_is_read_from_the_copyright_file(copyright_text: str, spdx: str | None) -> None:
    assert room("licence").guess_spdx(copyright_text) == spdx


def failed(*arguments: str | Path, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, str(MAKE), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **env},
    )
    assert done.returncode == 1, done.stderr
    return done.stderr


def test_unknown_package_is_named(tmp_path: Path) -> None:
    require_nix()
    message = failed("distribution", tmp_path / "flake", "--with", "no-such-package")
    assert "error: package no-such-package not found\n  check the name" in message
    assert not (tmp_path / "flake").exists()


def test_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    message = failed("distribution", tmp_path)
    assert f"error: {tmp_path} exists and is no distribution" in message
    assert [file.name for file in tmp_path.iterdir()] == ["precious"]


def test_missing_apt_is_explained(tmp_path: Path) -> None:
    message = failed("distribution", tmp_path / "flake", PATH=str(tmp_path))
    assert "error: apt-cache not found" in message
    assert "run it on Debian" in message


def test_apt_root_without_apt_is_refused(tmp_path: Path) -> None:
    message = failed("distribution", tmp_path / "flake", "--apt-root", tmp_path)
    assert "is no apt root: it has no etc/apt" in message


def test_failed_download_is_explained(tmp_path: Path) -> None:
    """A real apt whose only source is a port of this machine that nobody listens on."""
    require_nix()
    root, lists = tmp_path / "root", tmp_path / "root/var/lib/apt/lists"
    for folder in ("etc/apt", "var/lib/dpkg", "var/lib/apt/lists/partial", "var/cache/apt"):
        (root / folder).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    source = "deb [trusted=yes] http://127.0.0.1:9/debian stable main\n"
    (root / "etc/apt/sources.list").write_text(source)
    names = room("distribution").CORE
    stanza = "Package: {0}\nVersion: 1\nArchitecture: amd64\nFilename: pool/{0}.deb\n"
    stanza += "Size: 1\nSHA256: {1}\n"
    text = "\n".join(stanza.format(name, "0" * 64) for name in names)
    (lists / "127.0.0.1:9_debian_dists_stable_main_binary-amd64_Packages").write_text(text)
    cache: list[str | Path] = ["--apt-root", root, "--cache", tmp_path / "cache"]
    message = failed("distribution", tmp_path / "flake", *cache)
    assert f"error: downloading {len(names)} packages: apt-get download failed" in message
    assert "is the network up?" in message


def test_unknown_project_lists_the_known_ones(tmp_path: Path) -> None:
    message = failed("project", "nothing", tmp_path / "x", "--distribution", tmp_path)
    assert "error: no example project 'nothing'" in message
    assert "there are: bootstrap, hello, two-packages" in message


def test_project_needs_a_distribution(tmp_path: Path) -> None:
    message = failed("project", "hello", tmp_path / "x", "--distribution", tmp_path)
    assert f"error: {tmp_path} is no distribution" in message


def test_apt_root_offers_another_releases_packages(tmp_path: Path) -> None:
    require_nix()
    apt = room("apt")
    here = apt.Apt().packages()["libc6"].version
    try:
        apt.make_apt_root(tmp_path / "lists", "sid")
    except room("errors").Failure as failure:
        pytest.skip(f"needs a mirror with sid: {failure}")
    assert apt.Apt(tmp_path / "lists").packages()["libc6"].version != here
    sources = (tmp_path / "lists/etc/apt/sources.list").read_text()
    assert sources.count("\n") == 1
    assert " sid main" in sources
