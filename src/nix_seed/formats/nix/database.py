"""Which store paths are valid: Nix's registration format, and its database.

``nix-store --dump-db`` prints the format, and ``--load-db`` reads it. A record is a line each for
the path, the NAR's SHA-256 in hex, its size in bytes, the deriver (may be empty), the number of
references, and then every reference.

The database, ``/nix/var/nix/db/db.sqlite``, is written as a pure function of its rows. Schema 10,
which Nix has used from 2.0 to this day (newer versions add tables of their own when they open it).
Beside it lies a file ``schema`` that holds the number.

The same rows written by any SQLite give the same bytes: ids follow the sorted paths, times are 1,
the page size is fixed, ``secure_delete`` and a last pass zero what the final ``VACUUM`` leaves
unused, and the header's counters and writer's version (SQLite file format, 1.3) are constants.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nix_seed.core.digests import NarHash
from nix_seed.core.errors import InputError
from nix_seed.core.values import dataclass
from nix_seed.formats.nix.addressed import AddressedFile
from nix_seed.formats.nix.store_path import PathInfo, StorePath

if TYPE_CHECKING:
    import sqlite3


def parse_registration(text: str) -> tuple[PathInfo, ...]:
    """Read all records of *text*; ``InputError`` where it is not of this form."""
    try:
        return tuple(_records(iter(text.splitlines())))
    except (InputError, ValueError) as error:
        raise InputError(f"this is not what nix-store --dump-db prints: {error}") from error


def _records(lines: Iterator[str]) -> Iterator[PathInfo]:
    for path in lines:
        nar_hash = NarHash.parse(f"sha256:{_next(lines).removeprefix('sha256:')}")
        size = _number(_next(lines))
        _next(lines)
        references = [StorePath.parse(_next(lines)) for _ in range(_number(_next(lines)))]
        yield PathInfo(StorePath.parse(path), nar_hash, size, tuple(sorted(references)))


def _next(lines: Iterator[str]) -> str:
    line = next(lines, None)
    if line is None:
        raise ValueError("a record is cut short")
    return line


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is not a number")
    return int(text)


def format_registration(infos: Iterable[PathInfo]) -> str:
    """Return the text that registers *infos*, which have no deriver."""
    return "".join(map(_record, infos))


def _record(info: PathInfo) -> str:
    lines = [str(info.path), info.nar_hash.hex, str(info.nar_size), "", str(len(info.references))]
    return "".join(f"{line}\n" for line in lines + [str(path) for path in info.references])


DATABASE: Final = "nix/var/nix/db/db.sqlite"
"""Where, below a store's root, its database is."""


def read_valid_paths(path: Path) -> list[str]:
    """Return every path that Nix's database *path* calls valid, as text.

    ``OSError`` where it cannot be read.
    """
    return _ask(path, "SELECT path FROM ValidPaths")


def read_invalid_paths(path: Path, asked: Iterable[str]) -> list[str]:
    """Return those of *asked* that are not valid; ``OSError`` as above."""
    return _ask(path, _INVALID, json.dumps([*asked]))


def list_valid_paths(path: Path) -> str:
    """Return every valid path, sorted, a line each: there may be a hundred thousand."""
    return _ask(path, _LISTED)[0] or ""


def read_made(path: Path, asked: Iterable[str]) -> list[tuple[str, str]]:
    """Return derivations of *asked*, each with the name of an output of its that is valid."""
    return _ask_rows(path, _MADE, json.dumps([*asked]))


def read_requisites(path: Path, wanted: Iterable[str]) -> set[str]:
    """Return those of *wanted* that are valid, and all they refer to; ``OSError`` as above."""
    return set(_ask(path, _REQUISITES, json.dumps([*wanted])))


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a valid path comes from, as Nix's database has it.

    *ultimate*: built on this machine. *signatures* as they are stored, unverified. *addressed*:
    its name follows from its content, so nobody need be trusted. *deriver* may be long gone.
    """

    ultimate: bool
    signatures: tuple[str, ...]
    addressed: bool
    deriver: StorePath | None


@dataclass(frozen=True, slots=True)
class PathRecord:
    """What Nix's database holds of one valid path."""

    info: PathInfo
    provenance: Provenance


def read_records(path: Path, asked: Iterable[str]) -> list[PathRecord]:
    """Return what the database holds of those of *asked* that are valid, sorted by path.

    ``OSError`` as above, ``InputError`` for what no Nix writes.
    """
    wanted = json.dumps([*asked])
    references: dict[str, list[StorePath]] = {}
    for referrer, reference in _ask_rows(path, _REFERENCES, wanted):
        references.setdefault(referrer, []).append(StorePath.parse(reference))
    return [
        PathRecord(
            PathInfo(
                StorePath.parse(name),
                NarHash.parse(nar_hash),
                size,
                tuple(sorted(references.get(name, ()))),
            ),
            Provenance(
                bool(ultimate),
                tuple((signatures or "").split()),
                bool(address),
                StorePath.parse(deriver) if deriver else None,
            ),
        )
        for name, nar_hash, size, deriver, ultimate, signatures, address in _ask_rows(
            path, _RECORDS, wanted
        )
    ]


_RECORDS: Final = """
SELECT path, hash, narSize, deriver, ultimate, sigs, ca FROM ValidPaths
WHERE path IN (SELECT value FROM json_each(?)) ORDER BY path"""
_REFERENCES: Final = """
SELECT referring.path, referred.path FROM ValidPaths AS referring
JOIN Refs ON referrer = referring.id JOIN ValidPaths AS referred ON reference = referred.id
WHERE referring.path IN (SELECT value FROM json_each(?))"""
_INVALID: Final = """
SELECT value FROM json_each(?) WHERE value NOT IN (SELECT path FROM ValidPaths)"""
_LISTED: Final = """
SELECT group_concat(path || char(10), '') FROM (SELECT path FROM ValidPaths ORDER BY path)"""
_MADE: Final = """
SELECT drv.path, made.id FROM ValidPaths AS drv
JOIN DerivationOutputs AS made ON made.drv = drv.id
JOIN ValidPaths AS output ON output.path = made.path
WHERE drv.path IN (SELECT value FROM json_each(?))"""
_REQUISITES: Final = """
WITH RECURSIVE reached(id) AS (
    SELECT id FROM ValidPaths WHERE path IN (SELECT value FROM json_each(?))
    UNION SELECT reference FROM Refs JOIN reached ON referrer = reached.id
) SELECT path FROM ValidPaths JOIN reached USING (id)"""


def _ask(path: Path, question: str, *values: str) -> list[str]:
    return [row[0] for row in _ask_rows(path, question, *values)]


def _ask_rows(path: Path, question: str, *values: str) -> list[tuple[Any, ...]]:
    import sqlite3

    quoted = str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    try:
        with closing(sqlite3.connect(f"file:{quoted}?mode=ro", uri=True)) as database:
            return database.execute(question, values).fetchall()
    except sqlite3.Error as error:
        raise OSError(f"cannot read Nix's database {path}: {error}") from error


SCHEMA_VERSION: Final = b"10"
"""What the file ``schema`` beside the database holds."""

_PAGE_SIZE: Final = 4096
_REGISTRATION_TIME: Final = 1
_TABLES: Final = """
CREATE TABLE ValidPaths (
    id               integer primary key autoincrement not null,
    path             text unique not null,
    hash             text not null,
    registrationTime integer not null,
    deriver          text,
    narSize          integer,
    ultimate         integer,
    sigs             text,
    ca               text
);
CREATE TABLE Refs (
    referrer  integer not null,
    reference integer not null,
    primary key (referrer, reference),
    foreign key (referrer) references ValidPaths(id) on delete cascade,
    foreign key (reference) references ValidPaths(id) on delete restrict
);
CREATE INDEX IndexReferrer ON Refs(referrer);
CREATE INDEX IndexReference ON Refs(reference);
CREATE TRIGGER DeleteSelfRefs BEFORE DELETE ON ValidPaths
  BEGIN
    DELETE FROM Refs WHERE referrer = old.id AND reference = old.id;
  END;
CREATE TABLE DerivationOutputs (
    drv  integer not null,
    id   text not null,
    path text not null,
    primary key (drv, id),
    foreign key (drv) references ValidPaths(id) on delete cascade
);
CREATE INDEX IndexDerivationOutputs ON DerivationOutputs(path);
"""
_CHANGE_COUNTER: Final = slice(24, 28)
_SCHEMA_COOKIE: Final = slice(40, 44)
_VERSION_VALID_FOR: Final = slice(92, 96)
_WRITER: Final = slice(96, 100)


def build_database(infos: Iterable[PathInfo], files: Sequence[AddressedFile] = ()) -> bytes:
    """Return the database in which exactly *infos* and *files* are valid, in any order given.

    Raises ``InputError`` for a path given twice, and for a reference that is not among them: a
    store must be closed.
    """
    ordered = sorted([*infos, *(file.info for file in files)], key=lambda info: info.path)
    ids = {info.path: number for number, info in enumerate(ordered, 1)}
    if len(ids) != len(ordered):
        raise InputError("a store path is given twice for one database")
    import sqlite3

    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        _write(connection, ordered, ids, files)
        return _normalised(connection.serialize())
    finally:
        connection.close()


def _write(
    connection: sqlite3.Connection,
    infos: Sequence[PathInfo],
    ids: dict[StorePath, int],
    files: Sequence[AddressedFile],
) -> None:
    connection.execute(f"PRAGMA page_size = {_PAGE_SIZE}")
    connection.execute("PRAGMA encoding = 'UTF-8'")
    connection.execute("PRAGMA auto_vacuum = NONE")
    connection.execute("PRAGMA secure_delete = ON")
    connection.executescript(f"BEGIN; {_TABLES}")
    connection.executemany(
        "INSERT INTO ValidPaths (id, path, hash, registrationTime, narSize) VALUES (?, ?, ?, ?, ?)",
        (
            (
                ids[info.path],
                str(info.path),
                f"sha256:{info.nar_hash.hex}",
                _REGISTRATION_TIME,
                info.nar_size,
            )
            for info in infos
        ),
    )
    connection.executemany("INSERT INTO Refs VALUES (?, ?)", _references(infos, ids))
    connection.executemany(
        "UPDATE ValidPaths SET ca = ? WHERE id = ?",
        ((file.address, ids[file.info.path]) for file in files),
    )
    # As Nix itself does for each derivation it writes.
    connection.executemany(
        "INSERT INTO DerivationOutputs VALUES (?, ?, ?)",
        (
            (ids[file.info.path], name, str(output.path))
            for file in files
            if file.derivation is not None
            for name, output in sorted(file.derivation.outputs.items())
            if output.path is not None
        ),
    )
    connection.execute("COMMIT")
    connection.execute("VACUUM")


def _references(infos: Sequence[PathInfo], ids: dict[StorePath, int]) -> Iterable[tuple[int, int]]:
    for info in infos:
        # A set, as Nix keeps it; sorted, so that rows do not depend on how they were listed.
        for reference in sorted(set(info.references)):
            if reference not in ids:
                raise InputError(
                    f"{info.path} refers to {reference}, which is not among the paths of the"
                    " database: a store must hold the whole closure"
                )
            yield ids[info.path], ids[reference]


def _normalised(database: bytes) -> bytes:
    pages = bytearray(database)
    # Equal, or SQLite distrusts the page count in the header.
    pages[_CHANGE_COUNTER] = pages[_VERSION_VALID_FOR] = (1).to_bytes(4, "big")
    pages[_SCHEMA_COOKIE] = (1).to_bytes(4, "big")
    # The library that wrote the file; purely informative, and 3.40 is the oldest we have met.
    pages[_WRITER] = (3_040_000).to_bytes(4, "big")
    for page in range(0, len(pages), _PAGE_SIZE):
        _clear_gap(pages, page, page + (100 if page == 0 else 0))
    return bytes(pages)


def _clear_gap(pages: bytearray, page: int, header: int) -> None:
    """Zero what a b-tree page leaves between its cell pointers and its cells (1.6).

    Rows that were moved to another page leave pointers there, ``secure_delete`` or not, and which
    rows were moved differs between versions. Rows are short and a vacuum leaves no free pages, so
    that every page is of a b-tree.
    """
    interior = pages[header] in (2, 5)
    cells = int.from_bytes(pages[header + 3 : header + 5], "big")
    start = header + (12 if interior else 8) + 2 * cells
    end = page + (int.from_bytes(pages[header + 5 : header + 7], "big") or 65536)
    pages[start:end] = bytes(end - start)
