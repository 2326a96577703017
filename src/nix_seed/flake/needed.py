"""What evaluation itself fetches or builds: ``fetchTarball``, import from derivation, and so on.

That it does either, Nix tells where both are forbidden. What it is, one more evaluation shows, on
an empty store that has the machine's for a substituter: whatever is there then was needed. What
evaluation itself copies there from files of the flake and its inputs is told apart by its content.
"""

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from nix_seed.core.digests import NarHash
from nix_seed.core.errors import CouldNotCheck, InputError, NixFailed
from nix_seed.core.files import files_below
from nix_seed.flake.experiment import reason_of
from nix_seed.flake.nix import FlakeMetadata, Nix
from nix_seed.flake.nix_code import CODE, call_nix_half
from nix_seed.flake.own_source import OwnSource
from nix_seed.flake.rules.nix_failures import FORBIDDEN, REACH, UNREACHED
from nix_seed.flake.rules.nix_version import parse_nix_version
from nix_seed.flake.rules.recipe import Needed
from nix_seed.formats.nix.database import DATABASE
from nix_seed.formats.nix.store_path import StorePath

# Another answer than on a machine that has a network would be another key.
# What Nix before 2.24, and Lix, do by a forge's name without asking whether they may.
_UNASKED = re.compile(rb"\b(getFlake|fetchTree)\b")
_ASKS_SINCE = (2, 24)


def evaluate_outline(
    nix: Nix, metadata: FlakeMetadata, arguments: Mapping[str, Any], doing: str
) -> tuple[dict[str, Any], bool]:
    """Return what ``default.nix`` answers, and whether evaluation builds or fetches anything.

    The flake is evaluated where Nix forbids both, save getting the flake's inputs; and once more
    only if it then fails.
    """
    allowed = sorted({"path:", *_places_of_inputs(_lock(nix, metadata))})
    forbidding = {
        "allow-import-from-derivation": "false",
        "restrict-eval": "true",
        "allowed-uris": " ".join(allowed),
    }
    strict = replace(nix, settings={**nix.settings, **forbidding})
    try:
        answer = call_nix_half(strict, "outline", metadata.url, arguments, doing)
    except NixFailed as error:
        if FORBIDDEN.search(error.detail or "") is None:
            raise
        return call_nix_half(nix, "outline", metadata.url, arguments, doing), True
    return answer, _may_fetch_unseen(nix, metadata)


def _may_fetch_unseen(nix: Nix, metadata: FlakeMetadata) -> bool:
    source = f"{nix.root}{metadata.source}"
    names = (name for name in files_below(source) if name.endswith(".nix"))
    if not any(_UNASKED.search(Path(name).read_bytes()) for name in names):
        return False
    found = parse_nix_version(nix.version())
    return found is None or found.fork == "Lix" or found.number < _ASKS_SINCE


def _places_of_inputs(lock: Mapping[str, Any]) -> Iterator[str]:
    """Return what the addresses of the inputs begin with, as ``allowed-uris`` takes it."""
    for node in lock.get("nodes", {}).values():
        locked = node.get("locked", {})
        kind = locked.get("type")
        if url := locked.get("url"):
            above = url.rpartition("/")[0]
            yield from (f"{above}/", f"{kind}+{above}/")
        elif "owner" in locked:
            yield f"{kind}:{locked['owner']}/{locked['repo']}"


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
    machine = "local" if os.access("/nix/var/nix/db", os.W_OK) else "daemon"
    store = f"{machine}?trusted=1" if nix.store is None else f"local?root={nix.store}&trusted=1"
    with _empty_store() as root:
        settings = {"substitute": "true", "substituters": store, "require-sigs": "false"}
        inside = replace(nix, store=root, settings={**nix.settings, **settings})
        try:
            call_nix_half(inside, "outline", metadata.url, arguments, doing)
        except NixFailed as error:
            reason = reason_of(error.detail or error.message)
            if any(words in reason for words in UNREACHED):
                raise CouldNotCheck(
                    f"cannot tell what the flake fetches while it is evaluated: {reason}",
                    hint=REACH,
                ) from error
            return Needed(problem=reason)
        trees = [str(CODE), *(f"{nix.root}{path}" for path in inputs)]
        is_copy = OwnSource(Path(f"{nix.root}{metadata.source}"), root, trees)
        needed = _read(root, _input_hashes(_lock(nix, metadata)), is_copy)
        return replace(needed, sources=needed.sources - nix.invalid_paths(needed.sources))


def _read(root: Path, inputs: frozenset[NarHash], is_copy: Callable[[StorePath], bool]) -> Needed:
    """Read the database of the store at *root*; *inputs* are NAR hashes of the flake's inputs."""
    import sqlite3

    database = root / DATABASE
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


def read_lock(flake: Path) -> dict[str, Any]:
    """Return what the lock file of the flake at *flake* says, or nothing where there is none."""
    try:
        value = json.loads((flake / "flake.lock").read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _lock(nix: Nix, metadata: FlakeMetadata) -> dict[str, Any]:
    return read_lock(nix.at(metadata.source) / (metadata.directory or ""))


def _input_hashes(lock: Mapping[str, Any]) -> frozenset[NarHash]:
    """Return the NAR hashes of all inputs."""
    found = set()
    for node in lock.get("nodes", {}).values():
        try:
            found.add(NarHash.parse(node["locked"]["narHash"]))
        except (InputError, KeyError, TypeError):
            continue
    return frozenset(found)


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
