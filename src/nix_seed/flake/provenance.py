"""How paths came into this store: built here, substituted and signed by whom, or added.

Reads the store's database where that can be. Else ``nix path-info --json``, whose shape differs
between Nix versions: a list of objects that name their path, or an object by path; flat members
that have kept their names. With which settings Nix works here is told beside that.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from nix_seed.core.errors import InputError, NixFailed
from nix_seed.flake.nix import Nix, read_settings
from nix_seed.flake.rules.nix_version import parse_nix_version
from nix_seed.flake.rules.signatures import Signers, judge_signatures
from nix_seed.formats.intoto.statement import KeyCount, NixFacts, PathCounts
from nix_seed.formats.nix.database import Provenance
from nix_seed.formats.nix.store_path import STORE_DIR, StorePath, parse_public_keys


def count_origins(nix: Nix, paths: Iterable[StorePath]) -> PathCounts:
    """Count how each of *paths*, all valid, came to be: by Nix's own records.

    Of signatures only those count that verify by a key which Nix here trusts.
    """
    wanted = set(paths)
    known = read_provenance(nix, wanted)
    if len(known) != len(wanted):
        absent = min(wanted - known.keys())
        raise NixFailed(f"asking Nix where store paths came from: it does not know {absent}")
    signers = read_signers(nix, known)
    counts: Counter[str] = Counter()
    keys: Counter[str] = Counter()
    for path, info in known.items():
        signed = signers.get(path, Signers())
        counts[_origin(info, signed)] += 1
        keys.update(signed.verified)
    return PathCounts(
        counts["built"],
        counts["substituted"],
        counts["added"],
        counts["unexplained"],
        tuple(KeyCount(*each) for each in sorted(keys.items())),
    )


def nix_facts(nix: Nix) -> NixFacts:
    """Return the version, and the settings that bear on trust, as Nix itself resolves them."""
    settings = read_settings(nix)
    said = nix.version()
    found = parse_nix_version(said)
    return NixFacts(
        version=found.version if found else said,
        substituters=tuple(settings.get("substituters", "").split()),
        sandbox=settings.get("sandbox", "unknown"),
    )


def _origin(info: Provenance, signed: Signers) -> str:
    if info.ultimate:
        return "built"
    if info.addressed:
        return "added"
    return "substituted" if signed.verified else "unexplained"


# Some 80 bytes each; Linux takes two million bytes of arguments, macOS one.
_BATCH = 5000


def read_provenance(nix: Nix, paths: Iterable[StorePath]) -> dict[StorePath, Provenance]:
    """Return the provenance of those of *paths* that are valid in the store."""
    here = {path for path in paths if os.path.lexists(f"{nix.root}/{path}")}
    valid = sorted(map(str, here - nix.invalid_paths(here)))
    records = nix.records(valid)
    if records is not None and len(records) == len(valid):
        return {each.info.path: each.provenance for each in records}
    found: dict[StorePath, Provenance] = {}
    doing = "asking Nix where store paths come from"
    for start in range(0, len(valid), _BATCH):
        batch = valid[start : start + _BATCH]
        found |= _parse(nix.run("nix", ["path-info", "--json", *batch], doing), doing)
    return found


def read_signers(nix: Nix, known: Mapping[StorePath, Provenance]) -> dict[StorePath, Signers]:
    """Return who signed what was substituted of *known*, by the keys that Nix here trusts."""
    signed = {
        path: info.signatures
        for path, info in known.items()
        if info.signatures and not info.ultimate and not info.addressed
    }
    if not signed:
        return {}
    trusted = parse_public_keys(read_settings(nix).get("trusted-public-keys", "").split())
    return {
        info.path: judge_signatures(info, signed[info.path], trusted)
        for info in nix.path_infos(signed)
    }


def _parse(text: str, doing: str) -> dict[StorePath, Provenance]:
    try:
        value = json.loads(text)
        if isinstance(value, dict):
            items = [(path, info) for path, info in value.items() if info is not None]
        else:
            items = [(info["path"], info) for info in value]
        return {_path(path): _provenance(info) for path, info in items}
    except (ValueError, KeyError, TypeError, AttributeError, InputError) as error:
        raise NixFailed(f"{doing}: Nix printed something unknown: {error}") from error


def _path(text: str) -> StorePath:
    return StorePath.parse(text if "/" in text else f"{STORE_DIR}/{text}")


def _provenance(info: dict[str, Any]) -> Provenance:
    deriver = info.get("deriver")
    return Provenance(
        ultimate=bool(info.get("ultimate")),
        # The newest form is an object of a key's name and the signature.
        signatures=tuple(
            f"{each['keyName']}:{each['sig']}" if isinstance(each, dict) else str(each)
            for each in info.get("signatures", ())
        ),
        addressed=bool(info.get("ca")),
        deriver=_path(deriver) if deriver else None,
    )
