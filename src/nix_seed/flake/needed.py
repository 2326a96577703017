"""What evaluation itself fetches or builds: ``fetchTarball``, import from derivation, and so on.

That it builds, Nix tells where that is forbidden; that it fetches, where it counts its calls. What
it is, one more evaluation shows, on an empty store that has the machine's for a substituter:
whatever is there then was needed. What evaluation itself copies there from files of the flake and
its inputs is told apart by its content.
"""

import json
import os
import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from nix_seed.core.digests import NarHash
from nix_seed.core.errors import CouldNotCheck, InputError, NixFailed
from nix_seed.flake.experiment import reason_of
from nix_seed.flake.nix import FlakeMetadata, Nix
from nix_seed.flake.nix_code import call_nix_half
from nix_seed.flake.own_source import OwnSource
from nix_seed.flake.rules.recipe import Needed
from nix_seed.formats.nix.store_path import StorePath

_IMPORTS = "allow-import-from-derivation"
# Another answer than on a machine that has a network would be another key.
_UNREACHED = ("unable to download", "ould not resolve", "Cannot find Git revision", "program 'git'")
_FETCHER = re.compile(
    rb"\b(fetchTarball|fetchTree|fetchGit|fetchMercurial|fetchClosure|getFlake|builtins\.fetchurl"
    rb"|allowBuiltinFetchGit)\b"
)
_FETCHERS = ("fetchTarball", "fetchGit", "fetchMercurial", "fetchurl", "fetchClosure")
# What the product's own code asks for: itself, and its arguments where they are long.
_OWN_TREES, _OWN_FLAKES = 2, 1


def evaluate_outline(
    nix: Nix, metadata: FlakeMetadata, arguments: Mapping[str, Any], doing: str
) -> tuple[dict[str, Any], bool]:
    """Return what ``default.nix`` answers, and whether evaluation built or fetched anything.

    That it fetched is looked into where a file that was evaluated names a fetcher. Files of nixpkgs
    do, and call it for flakes only that ask by ``allowBuiltinFetchGit``.
    """
    strict = replace(nix, settings={**nix.settings, _IMPORTS: "false"})
    evaluated: set[str] = set()
    try:
        answer = call_nix_half(strict, "outline", metadata.url, arguments, doing, evaluated)
    except NixFailed as error:
        if _IMPORTS not in (error.detail or ""):
            raise
        return call_nix_half(nix, "outline", metadata.url, arguments, doing), True
    asked = any(_names_fetcher(nix.root, name) for name in evaluated)
    return answer, asked and fetches(nix, metadata, arguments, doing)


def _names_fetcher(root: Path, name: str) -> bool:
    tree = root / str(StorePath.containing(name)).lstrip("/")
    if _is_nixpkgs(tree):
        return False
    try:
        return _FETCHER.search((root / name.lstrip("/")).read_bytes()) is not None
    except OSError:
        return True


@cache
def _is_nixpkgs(tree: Path) -> bool:
    return any((tree / name / "build-support").is_dir() for name in ("pkgs", "."))


def fetches(nix: Nix, metadata: FlakeMetadata, arguments: Mapping[str, Any], doing: str) -> bool:
    """Evaluate once more, and have Nix count its calls, which takes it twice the time."""
    with tempfile.TemporaryDirectory(prefix="nix-seed-") as directory:
        counts = Path(directory, "counts.json")
        environment = {
            "NIX_SHOW_STATS": "1",
            "NIX_COUNT_CALLS": "1",
            "NIX_SHOW_STATS_PATH": str(counts),
        }
        counted = replace(nix, environment={**nix.environment, **environment})
        call_nix_half(counted, "outline", metadata.url, arguments, doing)
        return _fetches(counts, _lock(nix, metadata))


def find_needed(
    nix: Nix,
    metadata: FlakeMetadata,
    arguments: Mapping[str, Any],
    inputs: Iterable[str],
) -> Needed:
    """Evaluate once more, on an empty store, and return what is there then.

    *inputs* are the source trees of the flake's inputs.
    """
    doing = "evaluating the flake on an empty store"
    with _empty_store() as root:
        settings = {
            "substitute": "true",
            "substituters": _as_substituter(nix),
            "require-sigs": "false",
        }
        inside = replace(nix, store=root, settings={**nix.settings, **settings})
        try:
            call_nix_half(inside, "outline", metadata.url, arguments, doing)
        except NixFailed as error:
            reason = reason_of(error.detail or error.message)
            if any(words in reason for words in _UNREACHED):
                raise CouldNotCheck(
                    f"cannot tell what the flake fetches while it is evaluated: {reason}",
                    hint="see that this machine reaches what the flake names, and try again",
                ) from error
            return Needed(problem=reason)
        code = str(files("nix_seed.flake") / "expressions")
        trees = [code, *(f"{nix.root}{path}" for path in inputs)]
        is_copy = OwnSource(Path(f"{nix.root}{metadata.source}"), root, trees)
        needed = _read(root, _input_hashes(_lock(nix, metadata)), is_copy)
        return replace(needed, sources=needed.sources - nix.invalid_paths(needed.sources))


def _read(root: Path, inputs: frozenset[NarHash], is_copy: Callable[[StorePath], bool]) -> Needed:
    """Read the database of the store at *root*; *inputs* are NAR hashes of the flake's inputs."""
    database = root / "nix/var/nix/db/db.sqlite"
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        rows = connection.execute("select path, hash, ca, deriver from ValidPaths").fetchall()
    valid = {StorePath.parse(path) for path, *_ in rows}
    flat: set[StorePath] = set()
    trees: set[StorePath] = set()
    built: dict[StorePath, frozenset[StorePath]] = {}
    for text, nar_hash, address, deriver in rows:
        path = StorePath.parse(text)
        if path.name.endswith(".drv") or NarHash.parse(nar_hash) in inputs:
            continue
        if deriver and (made_by := StorePath.parse(deriver)) in valid:
            built[made_by] = built.get(made_by, frozenset()) | {path}
        elif (address or "").startswith("fixed:") and not is_copy(path):
            (trees if address.startswith("fixed:r:") else flat).add(path)
    # Some Nix keep the archive that they unpacked, under the name of what was in it.
    names = {path.name for path in trees}
    return Needed(frozenset(trees | {path for path in flat if path.name not in names}), built)


def _fetches(counts: Path, lock: Mapping[str, Any]) -> bool:
    """Tell whether more was fetched than the flake's own inputs."""
    try:
        calls = json.loads(counts.read_text())["primops"]
    except (OSError, ValueError, KeyError):
        return False
    called = {name.lstrip("_"): number for name, number in calls.items()}
    # Newer Nix fetches inputs by a function of its own.
    inputs = 0 if "fetchFinalTree" in called else len(lock.get("nodes", ())) - 1
    return (
        any(called.get(name) for name in _FETCHERS)
        or called.get("getFlake", 0) > _OWN_FLAKES
        or called.get("fetchTree", 0) > _OWN_TREES + max(inputs, 0)
    )


def _lock(nix: Nix, metadata: FlakeMetadata) -> dict[str, Any]:
    """Return what the flake's lock file says, or nothing where there is none."""
    source = nix.root / str(metadata.source).lstrip("/") / (metadata.directory or "")
    try:
        value = json.loads((source / "flake.lock").read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _input_hashes(lock: Mapping[str, Any]) -> frozenset[NarHash]:
    """Return the NAR hashes of all inputs."""
    found = set()
    for node in lock.get("nodes", {}).values():
        try:
            found.add(NarHash.parse(node["locked"]["narHash"]))
        except (InputError, KeyError, TypeError):
            continue
    return frozenset(found)


def _as_substituter(nix: Nix) -> str:
    if nix.store is not None:
        return f"local?root={nix.store}&trusted=1"
    return f"{'local' if os.access('/nix/var/nix/db', os.W_OK) else 'daemon'}?trusted=1"


@contextmanager
def _empty_store() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nix-seed-", ignore_cleanup_errors=True) as directory:
        # Nix refuses a store below a symlink, such as the /tmp of macOS.
        root = Path(directory).resolve()
        try:
            yield root
        finally:
            # Nobody may write to directories of a store.
            for path in root.rglob("*"):
                if path.is_dir() and not path.is_symlink():
                    path.chmod(0o755)
