from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from nix_seed.flake.rules.alter import alter, alter_values


@given(st.sampled_from(["main.c", "run.sh", "VERSION", "a.json", "flake.nix", "x"]), st.binary())
def test_every_file_gets_other_bytes(name: str, data: bytes) -> None:
    assert alter(name, data) != data


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("VERSION", "1.2.3\n", "1.2.4\n"),
        ("VERSION", "1.9", "1.0"),
        (".version", "v2", "v3"),
        # What chooses tools, and hashes, are left what they are.
        (".envrc", "use flake\n", "use flake\n\n"),
        ("rust-toolchain.toml", "[toolchain]\na = 1\n", "[toolchain]\na = 1\n#\n"),
        ("hash", "sha256:0123456789", "sha256:0123456789\n\n"),
        (
            "package.json",
            '{\n "version": "1.0.0", "description": "a" }',
            '{\n"nixSeedFurther": "", \n "version": "1.0.1", "description": ". a" }\n',
        ),
        (
            "package.json",
            '{\n "version": "1.0.0"\n}',
            '{\n"nixSeedFurther": "", \n "version": "1.0.1"\n}\n',
        ),
        ("main.py", "pass", "pass\n#\n"),
        ("run", "#!/bin/sh\ntrue\n", "#!/bin/sh\ntrue\n#\n"),
        ("main.rs", "fn main() {}\n", "fn main() {}\n//\n"),
    ],
)
def test_what_is_altered(name: str, text: str, expected: str) -> None:
    found = alter(name, text.encode()).decode()
    assert found.strip() == expected.strip()
    assert found != text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (".python-version", "3.11\n"),
        ("rust-toolchain", "nightly-2026-01-01"),
        ("go.toolchain.version", "1.26.1\n"),
        ("go.toolchain.rev", "5b5cb0db47535a0a8d2f\n"),
    ],
)
def test_a_pin_is_left_as_it_is(name: str, text: str) -> None:
    assert alter(name, text.encode()).decode() == text


@given(st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), st.none())))
def test_data_says_the_same(value: dict[str, str | int | None]) -> None:
    text = json.dumps(value).encode()
    assert json.loads(alter("data.json", text)) == value
    assert json.loads(alter("flake.lock", text)) == value


DEPENDENCIES = '[dependencies.log]\nversion = "0.4"\n[dependencies]\nserde = { version = "1.0" }\n'


@pytest.mark.parametrize(
    "table",
    [
        '[package]\nauthors = [\n "a",\n]\nversion = "1.9"\n',
        '[workspace.package]\nversion = "1.9"\n',
        '[workspace]\nmembers = ["a"]\n',
        # The version is the workspace's.
        "[package]\nversion.workspace = true\n",
        "[features]\nall = []\n[package]\nversion.workspace = true\n",
        '[package]\nversion.workspace = true\ndescription = "An \\"app\\""\n',
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_manifest_says_something_else_and_keeps_its_dependencies(table: str, first: bool) -> None:
    text = table + DEPENDENCIES if first else DEPENDENCIES + table
    before, found = tomllib.loads(text), tomllib.loads(alter("Cargo.toml", text.encode()).decode())
    assert found != before
    assert found["dependencies"] == before["dependencies"]
    package = found.get("package") or found["workspace"].get("package", {})
    assert package.get("version", "1.0") in ("1.0", {"workspace": True})


def test_code_stays_valid(tmp_path: Path) -> None:
    script = tmp_path / "x.sh"
    script.write_bytes(alter("x.sh", b"cat <<EOF\ntext\nEOF"))
    done = subprocess.run(["sh", str(script)], capture_output=True, text=True, check=True)
    assert done.stdout == "text\n"


@pytest.mark.parametrize(
    ("name", "text", "other"),
    [
        ("a.toml", 'n = 8080\ns = "web"\nt = true\n', 'n = 8081\ns = "webb"\nt = true\n'),
        ("a.toml", '[a."b"]\nl = ["x",\n  "y"]\n', '[a."b"]\nl = ["xx",\n  "yy"]\n'),
        ("a.json", '{"a": {"b": ["x1", 2, null]}}', '{"a": {"b": ["x2", 3, null]}}'),
        ("meson.build", "project('x', version: '1.2.9')", "project('x', version: '1.2.0')"),
        ("motd", "Hello there\n", "Hello theree\n"),
        # Hashes, addresses and paths, and what chooses dependencies, are left what they are.
        ("a.toml", f'h = "sha256-{"A" * 43}="\nu = "./x"\n', None),
        ("Cargo.toml", 'version = "0.1.9"\n', None),
        ("flake.lock", '{"version": 7}', None),
        ("package-lock.json", '{"version": 7}', None),
        (".python-version", "3.11\n", None),
        ("a.toml", "[a]\nb = true # c\n", "[a]\nb = false # c\n"),
        ("a.json", '{"a": [true, null]}', '{"a": [false, null]}'),
        # Of code, a version alone.
        (
            "run.sh",
            "echo hello\nVERSION=1.2.9\nsleep 1.5\n",
            "echo hello\nVERSION=1.2.0\nsleep 1.5\n",
        ),
        ("a.py", '__version__ = "1.2"\nx = 1.5\n', '__version__ = "1.3"\nx = 1.5\n'),
        ("pubspec.yaml", "name: a\nversion: 1.2.3+4\n", "name: a\nversion: 1.2.4+4\n"),
        ("run.sh", "echo hello\n", None),
        ("bad.toml", "x = ", None),
        ("bad.json", "{", None),
    ],
)
def test_other_values(name: str, text: str, other: str | None) -> None:
    assert alter_values(name, text.encode()).decode() == (text if other is None else other)


@given(st.sampled_from(["a.toml", "a.json", "x"]), st.binary())
def test_other_values_of_anything(name: str, data: bytes) -> None:
    alter_values(name, data)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,3}", fullmatch=True), st.integers(0, 99)))
def test_other_values_under_the_same_names(value: dict[str, int]) -> None:
    text = "".join(f"{name} = {number}\n" for name, number in value.items())
    found = tomllib.loads(alter_values("a.toml", text.encode()).decode())
    assert found.keys() == value.keys()
    assert all(found[name] != number for name, number in value.items())


def test_a_lock_file_agrees_with_its_manifest() -> None:
    """Some tools look a package up in the lock file by the version that its manifest says."""
    manifest = alter("Cargo.toml", b'[package]\nname = "app"\nversion = "0.1.9"\n').decode()
    lock = b"""version = 4

[[package]]
name = "app"
version = "0.1.9"
dependencies = [
 "log",
]

[[package]]
name = "log"
version = "0.4.2"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "b5e6163cb8c49088"
"""
    own, log = tomllib.loads(alter("Cargo.lock", lock).decode())["package"]
    assert own["version"] == tomllib.loads(manifest)["package"]["version"] == "0.1.0"
    assert log == tomllib.loads(lock.decode())["package"][1]
