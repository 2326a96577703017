from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nix_seed.flake.rules.alter import alter


@given(st.sampled_from(["main.c", "run.sh", "VERSION", "a.json", "flake.nix", "x"]), st.binary())
def test_every_file_gets_other_bytes(name: str, data: bytes) -> None:
    assert alter(name, data) != data


@pytest.mark.parametrize(
    ("name", "text", "altered"),
    [
        ("VERSION", "1.2.3\n", "1.2.4\n"),
        ("VERSION", "1.9", "1.0"),
        (".version", "v2", "v3"),
        # What chooses tools, and hashes, are left what they are.
        (".python-version", "3.11\n", "3.11\n\n"),
        ("rust-toolchain", "1.70.0\n", "1.70.0\n\n"),
        ("hash", "sha256:0123456789", "sha256:0123456789\n\n"),
        ("package.json", '{\n "version": "1.0.0"}', '{\n\n "version": "1.0.1"}\n'),
        ("Cargo.toml", 'version = "0.1.9"\n[d]\nversion = "1"\n', None),
        ("main.py", "pass", "pass\n#\n"),
        ("run", "#!/bin/sh\ntrue\n", "#!/bin/sh\ntrue\n#\n"),
        ("main.rs", "fn main() {}\n", "fn main() {}\n//\n"),
    ],
)
def test_what_is_altered(name: str, text: str, altered: str | None) -> None:
    expected = altered or 'version = "0.1.0"\n[d]\nversion = "1"\n#\n'
    found = alter(name, text.encode()).decode()
    assert found.strip() == expected.strip()
    assert found != text


@given(st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), st.none())))
def test_data_says_the_same(value: dict[str, str | int | None]) -> None:
    text = json.dumps(value).encode()
    assert json.loads(alter("data.json", text)) == value
    assert json.loads(alter("flake.lock", text)) == value


def test_a_manifest_keeps_its_dependencies() -> None:
    text = b'[package]\nversion = "1.0"\n[dependencies]\nserde = { version = "1.0" }\n'
    found = tomllib.loads(alter("Cargo.toml", text).decode())
    assert found["package"]["version"] == "1.1"
    assert found["dependencies"]["serde"] == {"version": "1.0"}


def test_code_stays_valid(tmp_path: Path) -> None:
    script = tmp_path / "x.sh"
    script.write_bytes(alter("x.sh", b"cat <<EOF\ntext\nEOF"))
    done = subprocess.run(["sh", str(script)], capture_output=True, text=True, check=True)
    assert done.stdout == "text\n"
