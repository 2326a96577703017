"""Files named by what they hold, held against what Nix itself writes and registers."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from nix_seed.core.errors import InputError
from nix_seed.formats.nix.addressed import AddressedFile
from nix_seed.formats.nix.database import DATABASE, SCHEMA_VERSION, build_database
from support.programs import need, run

_EXPRESSION = """
let
  word = builtins.toFile "word" "a text";
  make = name: more: derivation ({
    inherit name; system = "any"; builder = "/bin/sh"; umlaut = "grün \\n \\"quoted\\"";
  } // more);
  fetched = make "fetched" {
    outputHashMode = "flat"; outputHashAlgo = "sha256";
    outputHash = "0000000000000000000000000000000000000000000000000000";
  };
in make "two" { outputs = [ "out" "dev" ]; inputs = [ ./plain ./run word fetched ]; }
"""
_ROWS = (
    "SELECT path, hash, narSize, ca FROM ValidPaths ORDER BY 1",
    "SELECT a.path, b.path FROM Refs JOIN ValidPaths a ON referrer = a.id"
    " JOIN ValidPaths b ON reference = b.id ORDER BY 1, 2",
    "SELECT a.path, o.id, o.path FROM DerivationOutputs o JOIN ValidPaths a ON drv = a.id"
    " ORDER BY 1, 2",
)


def rows(database: Path) -> list[list[tuple[object, ...]]]:
    with closing(sqlite3.connect(database)) as connection:
        return [connection.execute(query).fetchall() for query in _ROWS]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which Nix instantiated a derivation, with three files that it names."""
    place = tmp_path_factory.mktemp("addressed")
    (place / "plain").write_bytes(b"plain\0\xff\n")
    (place / "run").write_text("#!/bin/sh\n")
    (place / "run").chmod(0o755)
    (place / "default.nix").write_text(_EXPRESSION)
    root = place / "root"
    env = {"NIX_CONFIG": "build-users-group =", "HOME": str(place)}
    run(need("nix-instantiate"), "--store", str(root), str(place / "default.nix"), env=env)
    return root


def read_files(root: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in (root / "nix/store").iterdir() if path.is_file()
    }


def test_what_nix_wrote_is_registered_as_by_nix(store: Path, tmp_path: Path) -> None:
    files = [AddressedFile.parse(*item) for item in read_files(store).items()]
    assert len(files) == 5
    assert sum(file.executable for file in files) == 1
    state = tmp_path / DATABASE
    state.parent.mkdir(parents=True)
    state.write_bytes(build_database([], files))
    (state.parent / "schema").write_bytes(SCHEMA_VERSION)
    assert rows(state) == rows(store / DATABASE)
    # Nix reads what we wrote, and finds every file to be what is registered.
    os.symlink(store / "nix/store", tmp_path / "nix/store")
    env = {
        "NIX_CONFIG": "build-users-group =",
        "HOME": str(tmp_path),
        "NIX_IGNORE_SYMLINK_STORE": "1",
    }
    command = (need("nix-store"), "--store", str(tmp_path), "--verify", "--check-contents")
    run(*command, env=env)


@given(st.data())
def test_other_bytes_are_not_what_a_name_says(store: Path, data: st.DataObject) -> None:
    name, right = data.draw(st.sampled_from(sorted(read_files(store).items())))
    at = data.draw(st.integers(0, len(right)))
    wrong = right[:at] + data.draw(st.binary(min_size=1, max_size=3)) + right[at:]
    with pytest.raises(InputError):
        AddressedFile.parse(name, wrong)


def test_other_names_are_refused(store: Path) -> None:
    for name, data in read_files(store).items():
        for other in (f"{name}x", f"../{name}", name[33:], f"{'0' * 32}{name[32:]}"):
            with pytest.raises(InputError):
                AddressedFile.parse(other, data)
