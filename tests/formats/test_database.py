from __future__ import annotations

import hashlib
import json
import random
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from nix_seed.core.digests import NarHash
from nix_seed.core.errors import InputError
from nix_seed.formats.nix.database import (
    DATABASE,
    SCHEMA_VERSION,
    build_database,
    read_requisites,
)
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from support.nars import NarFile, Symlink
from support.programs import need, run
from support.trees import AWKWARD, put


def some_infos(count: int) -> list[PathInfo]:
    paths = [StorePath(f"{number:032d}-path-{number}") for number in range(count)]
    return [
        PathInfo(
            path,
            NarHash.of(path.base_name.encode()),
            number,
            tuple(paths[number // 2 : number + 1]),
        )
        for number, path in enumerate(paths)
    ]


@pytest.fixture
def store(tmp_path: Path) -> tuple[Path, list[PathInfo]]:
    """A store whose database is ours: three paths, of which one refers to all."""
    lib, link = put(tmp_path, "lib", AWKWARD), put(tmp_path, "link", Symlink(b"lib"))
    app = put(tmp_path, "app", NarFile(b"#!/bin/sh\n", executable=True))
    app = replace(app, references=(link.path, app.path, lib.path))
    infos = [lib, link, app]
    state = tmp_path / "nix/var/nix/db"
    state.mkdir(parents=True)
    (state / "db.sqlite").write_bytes(build_database(infos))
    (state / "schema").write_bytes(SCHEMA_VERSION)
    return tmp_path, infos


def nix_store(root: Path, *arguments: str) -> list[str]:
    env = {"NIX_CONFIG": "build-users-group =", "HOME": str(root), "PATH": "/usr/bin:/bin"}
    command = (need("nix-store"), "--store", str(root), *arguments)
    return run(*command, env=env).decode().split("\n")[:-1]


def test_nix_finds_the_store_valid_to_the_last_byte(store: tuple[Path, list[PathInfo]]) -> None:
    root, _ = store
    nix_store(root, "--verify", "--check-contents")


def test_nix_would_notice_contents_that_are_not_the_database_s(
    store: tuple[Path, list[PathInfo]],
) -> None:
    root, infos = store
    (root / "nix/store" / infos[2].path.base_name).write_bytes(b"#!/bin/sh -e\n")
    with pytest.raises(AssertionError, match="was modified"):
        nix_store(root, "--verify", "--check-contents")


def test_nix_answers_from_it(store: tuple[Path, list[PathInfo]]) -> None:
    root, infos = store
    lib, link, app = infos
    references = nix_store(root, "--query", "--references", str(app.path))
    assert sorted(references) == sorted(str(path) for path in app.references)
    assert set(nix_store(root, "--query", "--referrers", str(lib.path))) == {str(app.path)}
    assert nix_store(root, "--query", "--hash", str(link.path)) == [link.nar_hash.nix32]
    nix = (need("nix"), "--extra-experimental-features", "nix-command", "--store", str(root))
    told = json.loads(run(*nix, "path-info", "--json", "--all"))
    told = told if isinstance(told, list) else [{"path": k} | v for k, v in told.items()]
    assert {(entry["path"], entry["narSize"]) for entry in told} == {
        (str(info.path), info.nar_size) for info in infos
    }


def test_nix_goes_on_writing_to_it(store: tuple[Path, list[PathInfo]], tmp_path: Path) -> None:
    root, infos = store
    (tmp_path / "more").write_text("more")
    [added] = nix_store(root, "--add", str(tmp_path / "more"))
    valid = {str(info.path) for info in infos} | {added}
    for wanted in ([added, str(infos[2].path)], [added], [str(info.path) for info in infos], []):
        told = set(nix_store(root, "--query", "--requisites", *wanted)) if wanted else set()
        assert read_requisites(root / DATABASE, wanted) == told
    assert read_requisites(root / DATABASE, [added, str(infos[2].path)]) == valid
    assert not read_requisites(root / DATABASE, [f"{added}-absent"])
    nix_store(root, "--delete", added)
    nix_store(root, "--verify", "--check-contents")


ROWS = """
    SELECT path, hash, narSize FROM ValidPaths ORDER BY path;
    SELECT a.path, b.path FROM Refs JOIN ValidPaths a ON a.id = referrer
        JOIN ValidPaths b ON b.id = reference ORDER BY 1, 2;
    SELECT ValidPaths.path, DerivationOutputs.id, DerivationOutputs.path FROM DerivationOutputs
        JOIN ValidPaths ON drv = ValidPaths.id ORDER BY 1, 2;
"""


def rows(database: Path) -> list[list[tuple[object, ...]]]:
    with sqlite3.connect(database) as connection:
        return [connection.execute(query).fetchall() for query in ROWS.split(";")[:-1]]


def test_it_has_the_rows_that_nix_itself_writes(tmp_path: Path) -> None:
    """References and a derivation's outputs, as Nix registers them."""
    (tmp_path / "source").write_text("source")
    expression = f"""derivation {{
        name = "x"; system = "any"; builder = "/bin/sh"; outputs = [ "out" "dev" ];
        source = {tmp_path}/source;
    }}"""
    root = tmp_path / "root"
    env = {"NIX_CONFIG": "build-users-group =", "HOME": str(tmp_path)}
    run(need("nix-instantiate"), "--store", str(root), "--expr", expression, env=env)
    theirs = root / "nix/var/nix/db/db.sqlite"
    valid, references, outputs = rows(theirs)
    assert (len(valid), len(references), len(outputs)) == (2, 1, 2)
    infos = [
        PathInfo(
            StorePath.parse(str(path)),
            NarHash.parse(str(digest)),
            int(str(size)),
            tuple(StorePath.parse(str(b)) for a, b in references if a == path),
        )
        for path, digest, size in valid
    ]
    ours = tmp_path / "ours.sqlite"
    ours.write_bytes(build_database(infos))
    assert rows(ours) == [valid, references, []]
    with sqlite3.connect(ours) as one, sqlite3.connect(theirs) as other:
        for table in ("ValidPaths", "Refs", "DerivationOutputs"):
            query = f"PRAGMA table_info({table})"
            assert one.execute(query).fetchall() == other.execute(query).fetchall()
        names = "SELECT type, name FROM sqlite_master ORDER BY 1, 2"
        assert one.execute(names).fetchall() == other.execute(names).fetchall()


def test_order_does_not_matter() -> None:
    infos = some_infos(300)
    database = build_database(infos)
    random.Random(1).shuffle(infos)
    twice = [replace(info, references=info.references[::-1] * 2) for info in infos]
    assert build_database(twice) == database


def test_the_file_is_plain_and_whole(tmp_path: Path) -> None:
    database = build_database(some_infos(300))
    assert database[18:20] == b"\x01\x01", "no write-ahead log"
    assert database[24:28] == database[92:96]
    path = tmp_path / "db.sqlite"
    path.write_bytes(database)
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        assert connection.execute("SELECT count(*) FROM ValidPaths").fetchone() == (300,)
        assert connection.execute(
            "SELECT DISTINCT registrationTime FROM ValidPaths"
        ).fetchall() == [(1,)]


def test_golden() -> None:
    """Recorded with SQLite 3.40; a change here is a change of format."""
    digest = hashlib.sha256(build_database(some_infos(100))).hexdigest()
    assert digest == "73c147717f64dc4285144b166068c75eb901538107ba3db934b19250f566bad4"


def test_what_is_not_closed_is_refused() -> None:
    one, other = some_infos(2)
    with pytest.raises(
        InputError, match=r"path-1 refers to .*path-0, which is not among the paths"
    ):
        build_database([other])
    with pytest.raises(InputError, match="a store path is given twice"):
        build_database([one, one])
